package main

import (
	"github.com/spf13/pflag"

	node "hansa.dev/hansa/agent/settings"
	"hansa.dev/hansa/daemon"
)

// kubeletFlags are the node's settings: files, and the kubelet's own flags by
// their names. Those are not in the help of each command: there are many, and
// whoever knows them knows what they do.
type kubeletFlags struct {
	file, dir string
	texts     map[string]string
}

func (k *kubeletFlags) add(f *pflag.FlagSet) {
	k.texts = map[string]string{}
	f.StringVar(&k.file, "kubelet-config", "", "file that configures the node (kubelet.config.k8s.io/v1beta1 KubeletConfiguration); the kubelet's flags such as --max-pods and --eviction-hard are taken, too")
	f.StringVar(&k.dir, "kubelet-config-dir", "", "directory whose files *.conf are merged over that of --kubelet-config, in the order of their names")
	for _, row := range node.Flags() {
		usage := "sets " + row.Path + " of the node's configuration, as the kubelet's flag does"
		if row.Path == "" {
			usage = row.Why
		}
		flag := f.VarPF(&kubeletFlag{row, k.texts}, row.Flag, "", usage)
		flag.Hidden = true
		if row.Bool() {
			flag.NoOptDefVal = "true"
		}
	}
}

// read checks the settings.
func (k *kubeletFlags) read(c *daemon.Config) (err error) {
	c.Node, err = node.Load(node.Sources{File: k.file, Dir: k.dir, Flags: k.texts})
	return err
}

// kubeletFlag keeps the text of a flag once it is given.
type kubeletFlag struct {
	row node.Field
	to  map[string]string
}

func (f *kubeletFlag) String() string { return f.to[f.row.Flag] }
func (f *kubeletFlag) Type() string   { return "string" }

// Set takes the text. Lists that are given more than once go on.
func (f *kubeletFlag) Set(text string) error {
	if old, ok := f.to[f.row.Flag]; ok && f.row.List() {
		text = old + "," + text
	}
	f.to[f.row.Flag] = text
	return nil
}
