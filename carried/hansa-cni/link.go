package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
)

// deleteLink removes the link called name from the process's network namespace
// by one rtnetlink request, RTM_DELLINK with the name as its only attribute
// (rtnetlink(7)). A link that is not there counts as removed. Written on the
// standard library: a netlink library would double this program.
func deleteLink(name string) error {
	if len(name) >= syscall.IFNAMSIZ {
		return fmt.Errorf("%q is longer than a link's name can be", name)
	}
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open rtnetlink: %w", err)
	}
	defer syscall.Close(fd)
	if err := syscall.Sendto(fd, deleteLinkMessage(name), 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return fmt.Errorf("send to rtnetlink: %w", err)
	}
	buf := make([]byte, syscall.Getpagesize())
	n, _, err := syscall.Recvfrom(fd, buf, 0)
	if err != nil {
		return fmt.Errorf("receive from rtnetlink: %w", err)
	}
	if err := acknowledged(buf[:n]); err != nil && !errors.Is(err, syscall.ENODEV) {
		return err
	}
	return nil
}

// deleteLinkMessage is the request: netlink header, ifinfomsg, IFLA_IFNAME.
func deleteLinkMessage(name string) []byte {
	const headers = syscall.SizeofNlMsghdr + syscall.SizeofIfInfomsg
	attr := syscall.SizeofRtAttr + len(name) + 1 // the name ends in a zero byte
	padded := (attr + syscall.RTA_ALIGNTO - 1) &^ (syscall.RTA_ALIGNTO - 1)
	msg := make([]byte, headers+padded)
	binary.NativeEndian.PutUint32(msg[0:], uint32(len(msg)))
	binary.NativeEndian.PutUint16(msg[4:], syscall.RTM_DELLINK)
	binary.NativeEndian.PutUint16(msg[6:], syscall.NLM_F_REQUEST|syscall.NLM_F_ACK)
	// Sequence, port and the whole ifinfomsg are zero: family AF_UNSPEC, and
	// index 0 lets the kernel look the name up.
	binary.NativeEndian.PutUint16(msg[headers:], uint16(attr))
	binary.NativeEndian.PutUint16(msg[headers+2:], syscall.IFLA_IFNAME)
	copy(msg[headers+syscall.SizeofRtAttr:], name)
	return msg
}

// acknowledged reads the kernel's answer: an error message whose number is 0
// when all went well.
func acknowledged(answer []byte) error {
	messages, err := syscall.ParseNetlinkMessage(answer)
	if err != nil {
		return fmt.Errorf("read rtnetlink's answer: %w", err)
	}
	for _, m := range messages {
		if m.Header.Type != syscall.NLMSG_ERROR || len(m.Data) < 4 {
			continue
		}
		if code := int32(binary.NativeEndian.Uint32(m.Data)); code != 0 {
			return syscall.Errno(-code)
		}
		return nil
	}
	return errors.New("rtnetlink did not acknowledge")
}
