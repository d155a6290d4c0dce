package env

import (
	"fmt"
	"strings"
)

// Expand puts variables into $(NAME). $$ stands for $, so $$(NAME) is left as
// $(NAME); a reference to what is not known is left as it is.
func Expand(s string, lookup func(string) (string, bool)) string {
	out, _ := expand(s, lookup)
	return out
}

// ExpandStrict is Expand for where every reference has to be known.
func ExpandStrict(s string, lookup func(string) (string, bool)) (string, error) {
	out, missing := expand(s, lookup)
	if len(missing) > 0 {
		return "", fmt.Errorf("missing value for %q", missing[0])
	}
	return out, nil
}

func expand(s string, lookup func(string) (string, bool)) (string, []string) {
	var b strings.Builder
	var missing []string
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || i == len(s)-1 {
			b.WriteString(s)
			return b.String(), missing
		}
		b.WriteString(s[:i])
		switch s[i+1] {
		case '$':
			b.WriteByte('$')
			s = s[i+2:]
		case '(':
			name, rest, ok := strings.Cut(s[i+2:], ")")
			if !ok {
				b.WriteString("$(")
				s = s[i+2:]
				continue
			}
			if v, found := lookup(name); found {
				b.WriteString(v)
			} else {
				b.WriteString("$(" + name + ")")
				missing = append(missing, name)
			}
			s = rest
		default:
			b.WriteString(s[i : i+2])
			s = s[i+2:]
		}
	}
}

// ExpandAll expands each of a command's words.
func ExpandAll(words []string, values map[string]string) []string {
	lookup := func(name string) (string, bool) { v, ok := values[name]; return v, ok }
	var out []string
	for _, w := range words {
		out = append(out, Expand(w, lookup))
	}
	return out
}
