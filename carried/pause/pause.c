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
 *
 * It confines itself to the three calls that it makes from then on, so that the
 * runtime need not make a filter of hundreds for each sandbox.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* A system call of up to four arguments; a fifth is 0. */
static long call4(long nr, long a, long b, long c, long d)
{
	long ret;
#if defined(__x86_64__)
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = 0;
	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = nr;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = 0;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
	ret = x0;
#else
#error "pause knows x86-64 and arm64"
#endif
	return ret;
}

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#else
#define ARCH AUDIT_ARCH_AARCH64
#endif

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define SKIP_IF(value, count) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, count, 0)
#define ANSWER(action) BPF_STMT(BPF_RET | BPF_K, action)

/*
 * Any other call ends the process. A kernel without filters has none; a runtime
 * that was asked for a profile would go on as well.
 */
static void confine(void)
{
	struct sock_filter filter[] = {
		LOAD(arch),
		SKIP_IF(ARCH, 1),
		ANSWER(SECCOMP_RET_KILL_PROCESS),
		LOAD(nr),
		SKIP_IF(SYS_rt_sigtimedwait, 3),
		SKIP_IF(SYS_wait4, 2),
		SKIP_IF(SYS_exit_group, 1),
		ANSWER(SECCOMP_RET_KILL_PROCESS),
		ANSWER(SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };
	long err;

	/* Without this only root may set a filter. */
	call4(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0);
	err = call4(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, (long)&program, 0);
	if (err && err != -ENOSYS && err != -EINVAL)
		call4(SYS_exit_group, 1, 0, 0, 0);
}

#define BIT(sig) (1UL << ((sig) - 1))

void _start(void)
{
	/* The kernel's signal set: one bit per signal, 8 bytes. */
	const unsigned long set = BIT(SIGTERM) | BIT(SIGINT) | BIT(SIGCHLD);

	call4(SYS_rt_sigprocmask, SIG_BLOCK, (long)&set, 0, sizeof(set));
	confine();
	for (;;) {
		long sig = call4(SYS_rt_sigtimedwait, (long)&set, 0, 0, sizeof(set));

		if (sig == SIGTERM || sig == SIGINT)
			call4(SYS_exit_group, 0, 0, 0, 0);
		/* One SIGCHLD may stand for many children. */
		while (call4(SYS_wait4, -1, 0, WNOHANG, 0) > 0)
			;
	}
}
