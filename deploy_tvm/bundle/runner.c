/* Runs a bundle on a board: compares the compiled program with the reference, integer by integer, and times it.
 *
 *   ./runner [CALLS]        CALLS: how many calls are timed (200)
 *
 * No library of TVM's is needed.  It shows how to call a program from C: the function takes an array of arguments, each
 * a pointer to a DLTensor, in the order of network.txt, and writes the outputs and the next states.  To build it again
 * on the board:  cc -O2 -rdynamic runner.c -L. -l:library.so '-Wl,-rpath,$ORIGIN' -o runner
 *
 * network.txt: after the head one line an argument: role, kind of number, bits, number of sizes, sizes (-1: steps of one
 * call), offset of its data in parameters.bin (constants) or golden.bin (everything else).  There may be several inputs
 * and outputs, a call's after another's; a "fixed" input is the same in all calls.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* The C interface of TVM's compiled functions: DLPack's tensor and the tagged value of the argument list. */
typedef struct {
  void* data;
  struct {
    int32_t type, id;
  } device;
  int32_t ndim;
  struct {
    uint8_t code, bits;
    uint16_t lanes;
  } dtype;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
} DLTensor;

typedef struct {
  int32_t type_index;
  uint32_t padding;
  union {
    int64_t integer;
    void* pointer;
  } value;
} Any;

enum { DEVICE_CPU = 1, TYPE_TENSOR_POINTER = 7, MAX_SIZES = 8, ALIGNMENT = 64 };

int __tvm_ffi_kernel(void* self, const Any* arguments, int32_t count, Any* result);

/* What a compiled function may ask of the runtime: memory, and a way to complain. */
typedef void* (*AllocateWorkspace)(int, int, uint64_t, int, int);
typedef int (*FreeWorkspace)(int, int, void*);
extern AllocateWorkspace __TVMBackendAllocWorkspace __attribute__((weak));
extern FreeWorkspace __TVMBackendFreeWorkspace __attribute__((weak));

void TVMFFIErrorSetRaisedFromCStr(const char* kind, const char* message) { fprintf(stderr, "%s: %s\n", kind, message); }

void TVMFFIErrorSetRaisedFromCStrParts(const char* kind, const char** parts, int32_t count) {
  fprintf(stderr, "%s: ", kind);
  for (int32_t i = 0; i < count; ++i)
    if (parts[i]) fputs(parts[i], stderr);
  fputc('\n', stderr);
}

enum Role { INPUT, FIXED, STATE, CONSTANT, OUTPUT, NEXT, ROLES };
static const char* const role_names[ROLES] = {"input", "fixed", "state", "constant", "output", "next"};

typedef struct {
  enum Role role;
  DLTensor tensor;
  int64_t shape[MAX_SIZES], strides[MAX_SIZES];
  size_t bytes;         /* of one call */
  const char* golden;   /* given or expected data; NULL for constants */
} Argument;

static void fail(const char* what, const char* name) {
  fprintf(stderr, "runner: %s %s%s%s\n", what, name, errno ? ": " : "", errno ? strerror(errno) : "");
  exit(2);
}

static void* allocate(size_t bytes) {
  void* memory = aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT) / ALIGNMENT * ALIGNMENT);
  if (!memory) fail("no memory for", "a tensor");
  return memory;
}

static void* allocate_workspace(int device, int id, uint64_t bytes, int code, int bits) {
  (void)device, (void)id, (void)code, (void)bits;
  return allocate((size_t)bytes);
}

static int free_workspace(int device, int id, void* memory) {
  (void)device, (void)id;
  free(memory);
  return 0;
}

static const char* map(const char* name, size_t* size) {
  const int file = open(name, O_RDONLY);
  struct stat status;
  if (file < 0 || fstat(file, &status)) fail("cannot open", name);
  *size = (size_t)status.st_size;
  if (!*size) return "";
  /* Writable, for this process alone: among the constants is a mark of which way the weights were read last. */
  const char* memory = mmap(NULL, *size, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
  if (memory == MAP_FAILED) fail("cannot map", name);
  close(file);
  return memory;
}

static void read_argument(FILE* file, Argument* a, int64_t steps, const char* parameters, size_t parameters_size,
                          const char* golden, size_t golden_size, int64_t calls) {
  char role[16], kind[16];
  int bits, sizes;
  if (fscanf(file, "%15s %15s %d %d", role, kind, &bits, &sizes) != 4 || sizes < 1 || sizes > MAX_SIZES)
    fail("cannot read", "network.txt");
  a->role = ROLES;
  for (int r = 0; r < ROLES; ++r)
    if (!strcmp(role, role_names[r])) a->role = (enum Role)r;
  if (a->role == ROLES) fail("network.txt: unknown role", role);
  a->tensor.dtype.code = !strcmp(kind, "int") ? 0 : !strcmp(kind, "uint") ? 1 : 2;
  a->tensor.dtype.bits = (uint8_t)bits;
  a->tensor.dtype.lanes = 1;
  a->tensor.device.type = DEVICE_CPU;
  a->tensor.ndim = sizes;
  int64_t elements = 1;
  for (int i = 0; i < sizes; ++i) {
    if (fscanf(file, "%" SCNd64, &a->shape[i]) != 1) fail("cannot read", "network.txt");
    if (a->shape[i] < 0) a->shape[i] = steps;
    elements *= a->shape[i];
  }
  for (int64_t i = sizes - 1, stride = 1; i >= 0; stride *= a->shape[i--]) a->strides[i] = stride;
  a->tensor.shape = a->shape;
  a->tensor.strides = a->strides;
  a->bytes = (size_t)(elements * bits / 8);
  uint64_t offset;
  if (fscanf(file, "%" SCNu64, &offset) != 1) fail("cannot read", "network.txt");
  const int sequence = a->role == INPUT || a->role == OUTPUT;
  const uint64_t end = offset + (uint64_t)a->bytes * (uint64_t)(sequence ? calls : 1);
  errno = 0;
  if (a->role == CONSTANT) {
    if (end > parameters_size) fail("too short:", "parameters.bin");
    a->tensor.data = (void*)(parameters + offset); /* offsets are multiples of ALIGNMENT */
  } else {
    if (end > golden_size) fail("too short:", "golden.bin");
    a->golden = golden + offset;
    a->tensor.data = allocate(a->bytes);
  }
}

static void call(const Any* values, int count) {
  Any result = {0, 0, {0}};
  const int code = __tvm_ffi_kernel(NULL, values, count, &result);
  if (code) {
    fprintf(stderr, "runner: the program failed with code %d\n", code);
    exit(2);
  }
}

/* What the program left as next states is what it reads at the next step: their memory changes places. */
static void advance(Argument* arguments, int count) {
  int next = 0;
  while (arguments[next].role != NEXT && next < count - 1) ++next;
  for (int i = 0; i < count; ++i)
    if (arguments[i].role == STATE) {
      void* const before = arguments[i].tensor.data;
      arguments[i].tensor.data = arguments[next].tensor.data;
      arguments[next++].tensor.data = before;
    }
}

/* Bytes would do for the verdict; the count is of numbers, so that it can be compared with other tools'. */
static int64_t differences(const char* name, const Argument* a, const void* got, const char* expected, int64_t at) {
  const size_t width = a->tensor.dtype.bits / 8;
  int64_t count = 0;
  if (!memcmp(got, expected, a->bytes)) return 0;
  for (size_t i = 0; i < a->bytes / width; ++i)
    if (memcmp((const char*)got + i * width, expected + i * width, width) && !count++)
      fprintf(stderr, "first difference: call %" PRId64 ", %s, element %zu\n", at, name, i);
  return count;
}

static int ascending(const void* a, const void* b) {
  const double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

static double now_us(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

static void give_input(Argument* arguments, int count, int64_t at) {
  for (int i = 0; i < count; ++i)
    if (arguments[i].role == INPUT)
      memcpy(arguments[i].tensor.data, arguments[i].golden + (size_t)at * arguments[i].bytes, arguments[i].bytes);
}

static void reset(Argument* arguments, int count) {
  for (int i = 0; i < count; ++i)
    if (arguments[i].role == STATE || arguments[i].role == FIXED)
      memcpy(arguments[i].tensor.data, arguments[i].golden, arguments[i].bytes);
}

int main(int argc, char** argv) {
  const int64_t timed = argc > 1 ? atoll(argv[1]) : 200;
  if (argc > 2 || timed < 1) {
    fprintf(stderr, "usage: ./runner [CALLS]    CALLS: how many calls are timed, at least 1\n");
    return 2;
  }
  char* const slash = strrchr(argv[0], '/');
  if (slash) {
    *slash = 0;
    if (chdir(argv[0])) fail("cannot enter", argv[0]);
  }
  if (&__TVMBackendAllocWorkspace) __TVMBackendAllocWorkspace = allocate_workspace;
  if (&__TVMBackendFreeWorkspace) __TVMBackendFreeWorkspace = free_workspace;

  size_t parameters_size, golden_size;
  const char* const parameters = map("parameters.bin", &parameters_size);
  const char* const golden = map("golden.bin", &golden_size);
  FILE* const file = fopen("network.txt", "r");
  if (!file) fail("cannot open", "network.txt");
  char target[64], hash[80];
  int64_t steps, calls;
  int count;
  if (fscanf(file, "irnn-bundle 1 target %63s program %79s steps %" SCNd64 " calls %" SCNd64 " arguments %d", target,
             hash, &steps, &calls, &count) != 5 || steps < 1 || calls < 1 || count < 1 || count > 1 << 16)
    fail("cannot read", "network.txt");
  Argument* const arguments = calloc((size_t)count, sizeof *arguments);
  Any* const values = calloc((size_t)count, sizeof *values);
  double* const us = calloc((size_t)timed, sizeof *us);
  if (!arguments || !values || !us) fail("no memory for", "the arguments");
  for (int i = 0; i < count; ++i) {
    read_argument(file, &arguments[i], steps, parameters, parameters_size, golden, golden_size, calls);
    values[i].type_index = TYPE_TENSOR_POINTER;
    values[i].value.pointer = &arguments[i].tensor;
  }
  fclose(file);

  printf("bundle for %s, program %.12s\n", target, hash);
  int64_t wrong = 0, compared = 0;
  reset(arguments, count);
  for (int64_t at = 0; at < calls; ++at) {
    give_input(arguments, count, at);
    call(values, count);
    for (int i = 0; i < count; ++i) {
      const Argument* const a = &arguments[i];
      const int last = at == calls - 1;
      if (a->role != OUTPUT && !(a->role == NEXT && last)) continue;
      const size_t shift = a->role == OUTPUT ? (size_t)at * a->bytes : 0;
      wrong += differences(role_names[a->role], a, a->tensor.data, a->golden + shift, at);
      compared += (int64_t)(a->bytes / (a->tensor.dtype.bits / 8));
    }
    advance(arguments, count);
  }
  printf("%s: %" PRId64 " of %" PRId64 " integers differ from the reference (%" PRId64 " steps)\n",
         wrong ? "FAIL" : "PASS", wrong, compared, steps * calls);

  reset(arguments, count);
  for (int64_t at = 0; at < timed; ++at) {
    give_input(arguments, count, at % calls);
    const double start = now_us();
    call(values, count);
    us[at] = (now_us() - start) / (double)steps;
    advance(arguments, count);
  }
  qsort(us, (size_t)timed, sizeof *us, ascending);
  printf("latency: median %.1f us, p95 %.1f us a step (%" PRId64 " calls)\n", us[timed / 2], us[(timed * 95) / 100],
         timed);
  return wrong ? 1 : 0;
}
