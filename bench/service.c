/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A program to be supervised: writes its pid (four bytes) into the FIFO named by its first argument, then waits for a
 * signal for ever. Built twice: as any program, and without libc (service-tiny), whose start is not hidden behind 500 us of
 * dynamic linking.
 */

#include <fcntl.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef TINY

static long call(long number, long a, long b, long c, long d) {
#if defined(__x86_64__)
        register long r10 __asm__("r10") = d;
        long result;

        __asm__ volatile("syscall"
                         : "=a"(result)
                         : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
                         : "rcx", "r11", "memory");
        return result;
#elif defined(__aarch64__)
        register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c,
                         x3 __asm__("x3") = d;

        __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
        return x0;
#else
#error "the calls of this machine are not known here"
#endif
}

#else

static long call(long number, long a, long b, long c, long d) {
        return syscall(number, a, b, c, d);
}

#endif

static void serve(const char *fifo) {
        int32_t pid = (int32_t) call(SYS_getpid, 0, 0, 0, 0);
        long fd = call(SYS_openat, AT_FDCWD, (long) fifo, O_WRONLY | O_CLOEXEC, 0);

        if (fd < 0 || call(SYS_write, fd, (long) &pid, sizeof(pid), 0) != sizeof(pid))
                call(SYS_exit_group, 1, 0, 0, 0);
        call(SYS_close, fd, 0, 0, 0);
        for (;;)
                call(SYS_ppoll, 0, 0, 0, 0);
}

#ifdef TINY

_Noreturn void start(long *stack) {
        serve(((char **) (stack + 1))[1]);
        for (;;)
                ;
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call start\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n_start: mov x0, sp\n bl start\n");
#endif

#else

int main(int argc, char **argv) {
        if (argc != 2)
                return 2;
        serve(argv[1]);
        return 0;
}

#endif
