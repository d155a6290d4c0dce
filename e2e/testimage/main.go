// Command testimage is what containers of the end-to-end tests run when a shell
// does not do: servers whose health is switched from outside, memory that is
// really used, system calls that a profile should deny.
//
//	testimage serve [-http PORT] [-tcp PORT] [-grpc PORT]
//	testimage alloc MEBIBYTES
//	testimage try unshare|keyctl
//	testimage check URL
//	testimage ask PATH
package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "testimage:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("say what to do: serve, alloc, try, check or ask")
	}
	switch args[0] {
	case "serve":
		return serve(args[1:])
	case "alloc":
		return alloc(args[1:])
	case "try":
		return try(args[1:])
	case "check":
		return check(args[1:])
	case "ask":
		return ask(args[1:])
	}
	return fmt.Errorf("%q is not serve, alloc, try, check or ask", args[0])
}

// alloc uses so much memory and keeps it until a signal.
func alloc(args []string) error {
	if len(args) != 1 {
		return errors.New("alloc takes a number of mebibytes")
	}
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	memory, err := unix.Mmap(-1, 0, n<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("map %d MiB: %w", n, err)
	}
	for i := 0; i < len(memory); i += os.Getpagesize() {
		memory[i] = 1
	}
	fmt.Printf("using %d MiB\n", n)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
	return nil
}

// try makes a system call and prints the error's name, or "allowed".
func try(args []string) error {
	if len(args) != 1 {
		return errors.New("try takes the name of a system call")
	}
	var err error
	switch args[0] {
	case "unshare":
		err = unix.Unshare(unix.CLONE_NEWUSER)
	case "keyctl":
		_, err = unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false)
	default:
		return fmt.Errorf("%q is not unshare or keyctl", args[0])
	}
	var number syscall.Errno
	switch {
	case err == nil:
		fmt.Println("allowed")
	case errors.As(err, &number):
		fmt.Println(unix.ErrnoName(number))
	default:
		return err
	}
	return nil
}
