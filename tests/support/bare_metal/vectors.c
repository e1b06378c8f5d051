/* What a Cortex-M reads when it starts: the stack, and where to begin.  Any fault ends in a loop. */
extern void _start(void);
extern char __stack[];

static void fault(void)
{
    for (;;) {
    }
}

__attribute__((section(".vectors"), used)) void (*const vectors[16])(void) = {
    (void (*)(void))__stack, _start, fault, fault, fault, fault, fault, 0, 0, 0, 0, fault, fault, 0, fault, fault,
};
