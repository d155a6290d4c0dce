package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// A Datum is a key or value of a set: its nft text and its bytes as the
// kernel keeps them, each field padded to whole 32-bit registers. It is
// comparable. A verdict has no bytes.
type Datum struct {
	Text string
	Raw  string
}

// IsZero reports whether d is the data of a plain set's element.
func (d Datum) IsZero() bool { return d == Datum{} }

// Addr is an address as a datum.
func Addr(a netip.Addr) Datum {
	a = a.Unmap()
	return Datum{Text: a.String(), Raw: string(a.AsSlice())}
}

// A Proto is a transport protocol's number.
type Proto uint8

// The transport protocols that services and host ports have.
const (
	TCP  Proto = unix.IPPROTO_TCP
	UDP  Proto = unix.IPPROTO_UDP
	SCTP Proto = unix.IPPROTO_SCTP
)

// ParseProto returns the protocol of a name as Kubernetes and CNI write it
// ("TCP", "udp"); the empty name is TCP.
func ParseProto(name string) (Proto, error) {
	switch strings.ToLower(name) {
	case "tcp", "":
		return TCP, nil
	case "udp":
		return UDP, nil
	case "sctp":
		return SCTP, nil
	}
	return 0, fmt.Errorf("unknown protocol %q: want TCP, UDP or SCTP", name)
}

// String returns the protocol's name in lower case.
func (p Proto) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	}
	return fmt.Sprint(uint8(p))
}

// Datum returns the protocol as a datum.
func (p Proto) Datum() Datum {
	return Datum{Text: p.String(), Raw: string([]byte{byte(p), 0, 0, 0})}
}

// Port is a port number as a datum.
func Port(p uint16) Datum {
	return Datum{Text: fmt.Sprint(p), Raw: string([]byte{byte(p >> 8), byte(p), 0, 0})}
}

// Number is a mark, or an index chosen by numgen, as a datum.
func Number(n uint32) Datum {
	return Datum{Text: fmt.Sprint(n), Raw: string(binary.NativeEndian.AppendUint32(nil, n))}
}

// Concat joins fields to one datum.
func Concat(fields ...Datum) Datum {
	var text, raw strings.Builder
	for i, f := range fields {
		if i > 0 {
			text.WriteString(" . ")
		}
		text.WriteString(f.Text)
		raw.WriteString(f.Raw)
	}
	return Datum{Text: text.String(), Raw: raw.String()}
}

// GotoDatum is a verdict map's value that continues in a chain.
func GotoDatum(chain string) Datum { return Datum{Text: "goto " + chain} }
