/* What a Cortex-M reads when it starts: the stack, and where to begin.  Any fault ends in a loop. */
extern void _start(void);
extern char __stack[];

union vector {
    char *stack;
    void (*enter)(void);
};

static void fault(void)
{
    for (;;) {
    }
}

__attribute__((section(".vectors"), used)) const union vector vectors[16] = {
    {.stack = __stack},
    {.enter = _start},
    {.enter = fault},
    {.enter = fault},
    {.enter = fault},
    {.enter = fault},
    {.enter = fault},
    [11] = {.enter = fault},
    [12] = {.enter = fault},
    [14] = {.enter = fault},
    [15] = {.enter = fault},
};
