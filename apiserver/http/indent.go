package http

import (
	"bytes"
	"io"
)

// indenter lays out JSON as json.Indent does with two spaces, piece by piece.
// What it is given has no space between its tokens but at its end, which goes.
type indenter struct {
	to    io.Writer
	depth int
	begun bool // the last token opened a list or object: it may be empty
	text  bool // within a string
	next  bool // the next byte is escaped
	buf   []byte
}

// Write implements io.Writer. b may end anywhere.
func (i *indenter) Write(b []byte) (int, error) {
	i.buf = i.buf[:0]
	for _, c := range b {
		i.add(c)
	}
	if _, err := i.to.Write(i.buf); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (i *indenter) add(c byte) {
	if i.text {
		i.buf = append(i.buf, c)
		switch {
		case i.next:
			i.next = false
		case c == '\\':
			i.next = true
		case c == '"':
			i.text = false
		}
		return
	}
	switch c {
	case '\n', ' ':
		return
	case '}', ']':
		i.depth--
		if !i.begun {
			i.line()
		}
		i.begun = false
		i.buf = append(i.buf, c)
		return
	case ',':
		i.buf = append(i.buf, c)
		i.line()
		return
	case ':':
		i.buf = append(i.buf, ": "...)
		return
	}
	if i.begun {
		i.line()
		i.begun = false
	}
	i.buf = append(i.buf, c)
	switch c {
	case '{', '[':
		i.depth++
		i.begun = true
	case '"':
		i.text = true
	}
}

var spaces = bytes.Repeat([]byte("  "), 32)

func (i *indenter) line() {
	i.buf = append(i.buf, '\n')
	n := 2 * i.depth
	for ; n > len(spaces); n -= len(spaces) {
		i.buf = append(i.buf, spaces...)
	}
	i.buf = append(i.buf, spaces[:n]...)
}
