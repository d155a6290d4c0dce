package pod

import (
	"path"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// noBacksteps refuses paths that lead upwards.
func (c *checker) noBacksteps(at *field.Path, p string) {
	if hasBackstep(p) {
		c.invalid(at, p, "must not contain '..'")
	}
}

func hasBackstep(p string) bool {
	for part := range strings.SplitSeq(p, "/") {
		if part == ".." {
			return true
		}
	}
	return false
}

// relativePath accepts paths that stay below where they are put.
func (c *checker) relativePath(at *field.Path, p string) {
	if path.IsAbs(p) {
		c.invalid(at, p, "must be a relative path")
	}
	c.noBacksteps(at, p)
}

// plainRelativePath is relativePath without the names that volume writers keep
// for themselves, which start with two dots.
func (c *checker) plainRelativePath(at *field.Path, p string) {
	c.relativePath(at, p)
	if strings.HasPrefix(p, "..") && !strings.HasPrefix(p, "../") {
		c.invalid(at, p, "must not start with '..'")
	}
}
