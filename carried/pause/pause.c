//go:build ignore
// (The line above keeps the go command, which runs the test beside, off this file.)

/*
 * pause holds a pod's namespaces open: it is the first process of the
 * sandbox, does nothing, reaps what is orphaned to it when containers share
 * its process namespace, and exits with 0 on SIGTERM or SIGINT.
 *
 * It is linked without a C library (see build): one page of code
 * and a few of stack per pod is all that a sandbox costs in memory. The signals
 * are blocked and fetched with rt_sigtimedwait, not handled: no handler needs a
 * return trampoline, and a blocked signal reaches even the first process of a
 * namespace, for which the kernel drops unhandled ones.
 */
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static long call4(long nr, long a, long b, long c, long d)
{
	long ret;
#if defined(__x86_64__)
	register long r10 __asm__("r10") = d;
	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10)
			 : "rcx", "r11", "memory");
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = nr;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
	ret = x0;
#else
#error "pause knows x86-64 and arm64"
#endif
	return ret;
}

#define BIT(sig) (1UL << ((sig) - 1))

void _start(void)
{
	/* The kernel's signal set: one bit per signal, 8 bytes. */
	const unsigned long set = BIT(SIGTERM) | BIT(SIGINT) | BIT(SIGCHLD);

	call4(SYS_rt_sigprocmask, SIG_BLOCK, (long)&set, 0, sizeof(set));
	for (;;) {
		long sig = call4(SYS_rt_sigtimedwait, (long)&set, 0, 0, sizeof(set));

		if (sig == SIGTERM || sig == SIGINT)
			call4(SYS_exit_group, 0, 0, 0, 0);
		/* One SIGCHLD may stand for many children. */
		while (call4(SYS_wait4, -1, 0, WNOHANG, 0) > 0)
			;
	}
}
