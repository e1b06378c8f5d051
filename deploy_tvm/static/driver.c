/* Calls one compiled TVM function on arrays from a file, without any TVM library, and writes the arrays back.
 *
 *   driver LIBRARY SYMBOL CALLS ARRAYS_IN ARRAYS_OUT
 *
 * File: int32 count; then for each array int32 type code, bits, dimensions; int64 sizes; the data.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tvm/ffi/c_api.h>

#define MOST 256

/* The one symbol that compiled code needs, and the two slots that it allocates large scratch memory through. */
void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count) {
  fprintf(stderr, "%s: ", kind);
  for (int32_t i = 0; i < count; ++i) fputs(parts[i] ? parts[i] : "", stderr);
  fputc('\n', stderr);
}

static void *allocate(int type, int device, uint64_t bytes, int code, int bits) {
  (void)type, (void)device, (void)code, (void)bits;
  void *memory = NULL;
  return posix_memalign(&memory, 64, bytes ? bytes : 1) ? NULL : memory;
}

static int release(int type, int device, void *memory) {
  (void)type, (void)device;
  free(memory);
  return 0;
}

static void need(int holds, const char *what) {
  if (holds) return;
  fprintf(stderr, "driver: %s\n", what);
  exit(2);
}

static int64_t bytes_of(const DLTensor *array) {
  int64_t bytes = array->dtype.bits / 8;
  for (int32_t i = 0; i < array->ndim; ++i) bytes *= array->shape[i];
  return bytes;
}

static void read_array(FILE *file, DLTensor *array) {
  int32_t header[3];
  need(fread(header, sizeof header, 1, file) == 1, "the arrays' file is cut short");
  memset(array, 0, sizeof *array);
  array->device.device_type = kDLCPU;
  array->dtype.code = (uint8_t)header[0], array->dtype.bits = (uint8_t)header[1], array->dtype.lanes = 1;
  array->ndim = header[2];
  array->shape = calloc(2 * (size_t)header[2] + 1, sizeof(int64_t));
  array->strides = array->shape + header[2];
  need(fread(array->shape, sizeof(int64_t), (size_t)header[2], file) == (size_t)header[2], "sizes are cut short");
  for (int64_t i = header[2] - 1, step = 1; i >= 0; step *= array->shape[i--]) array->strides[i] = step;
  size_t bytes = (size_t)bytes_of(array);
  array->data = allocate(0, 0, bytes, 0, 0);
  need(array->data && fread(array->data, 1, bytes, file) == bytes, "the arrays' file is cut short");
}

int main(int count, char **arguments) {
  need(count == 6, "usage: driver LIBRARY SYMBOL CALLS ARRAYS_IN ARRAYS_OUT");
  void *library = dlopen(arguments[1], RTLD_NOW);
  if (!library) fprintf(stderr, "%s\n", dlerror());
  need(library != NULL, "the library cannot be loaded");
  void **slot = dlsym(library, "__TVMBackendAllocWorkspace");
  if (slot) *slot = (void *)allocate;
  slot = dlsym(library, "__TVMBackendFreeWorkspace");
  if (slot) *slot = (void *)release;
  int (*function)(void *, const TVMFFIAny *, int32_t, TVMFFIAny *) = NULL;
  *(void **)&function = dlsym(library, arguments[2]);
  need(function != NULL, "the library lacks the function");

  FILE *file = fopen(arguments[4], "rb");
  int32_t arrays = 0;
  need(file && fread(&arrays, sizeof arrays, 1, file) == 1 && arrays <= MOST, "the arrays' file cannot be read");
  static DLTensor tensors[MOST];
  static TVMFFIAny values[MOST];
  for (int32_t i = 0; i < arrays; ++i) {
    read_array(file, &tensors[i]);
    values[i].type_index = kTVMFFIDLTensorPtr;
    values[i].v_ptr = &tensors[i];
  }
  fclose(file);

  for (int calls = atoi(arguments[3]); calls > 0; --calls) {
    TVMFFIAny result;
    memset(&result, 0, sizeof result);
    need(function(NULL, values, arrays, &result) == 0, "the function failed");
  }

  file = fopen(arguments[5], "wb");
  need(file != NULL, "the results cannot be written");
  for (int32_t i = 0; i < arrays; ++i) {
    size_t bytes = (size_t)bytes_of(&tensors[i]);
    need(fwrite(tensors[i].data, 1, bytes, file) == bytes, "the results cannot be written");
  }
  need(fclose(file) == 0, "the results cannot be written");
  return 0;
}
