package volume

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	v1 "k8s.io/api/core/v1"

	"hansa.dev/hansa/agent/pod"
)

// owner is who the files of a volume belong to.
type owner struct {
	user, group *int64
	onMismatch  bool // fsGroupChangePolicy OnRootMismatch
}

// ownerOf is the pod's fsGroup, with a user for the files that only one shall
// read.
func ownerOf(p *v1.Pod, user *int64) owner {
	o := owner{user: user}
	if sc := p.Spec.SecurityContext; sc != nil {
		o.group = sc.FSGroup
		o.onMismatch = sc.FSGroupChangePolicy != nil && *sc.FSGroupChangePolicy == v1.FSGroupChangeOnRootMismatch
	}
	return o
}

// commonUser is the user as which all containers of a pod run, if the spec says
// so; tokens then belong to that user alone.
func commonUser(p *v1.Pod) *int64 {
	var whole *int64
	if sc := p.Spec.SecurityContext; sc != nil {
		whole = sc.RunAsUser
	}
	var common *int64
	first := true
	for c := range pod.Containers(&p.Spec) {
		user := whole
		if sc := c.SecurityContext; sc != nil && sc.RunAsUser != nil {
			user = sc.RunAsUser
		}
		if user == nil || !first && *user != *common {
			return nil
		}
		common, first = user, false
	}
	return common
}

// privateFile is for the one who runs, or for the group, not for all.
func privateFile(p *v1.Pod, data []byte, mode fs.FileMode) file {
	f := file{data: data, mode: mode, user: commonUser(p)}
	if sc := p.Spec.SecurityContext; f.user != nil || sc != nil && sc.FSGroup != nil {
		f.mode = 0o600
	}
	return f
}

// Bits that members of the fsGroup get.
const (
	readBits  = 0o440
	writeBits = 0o660
	execBits  = 0o110
)

// own gives a tree to the fsGroup: its group, its access, and new files in its
// directories to the same group.
func own(root string, o owner, readOnly bool) error {
	if o.group == nil {
		return nil
	}
	gid := int(*o.group)
	if o.onMismatch {
		info, err := os.Lstat(root)
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Gid) == gid && info.Mode()&fs.ModeSetgid != 0 {
			return nil
		}
	}
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := os.Lchown(path, -1, gid); err != nil {
			return err
		}
		if d.Type()&fs.ModeSymlink != 0 {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return os.Chmod(path, groupMode(info.Mode(), readOnly))
	})
}

func groupMode(mode fs.FileMode, readOnly bool) fs.FileMode {
	add := fs.FileMode(writeBits)
	if readOnly {
		add = readBits
	}
	if mode.IsDir() {
		add |= execBits | fs.ModeSetgid
	}
	return mode | add
}
