package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"hansa.dev/hansa/internal/ocibuild"
)

// Images of the tests' containers.
const (
	shell     = ocibuild.Busybox
	testimage = "hansa.local/testimage:1"
)

// imagesVariable hands the files of the images to the machines, from which
// packages cannot be fetched.
const imagesVariable = "HANSA_E2E_IMAGES"

// buildImages builds the images and leaves their files in the environment.
func buildImages() error {
	ctx := context.Background()
	b, err := ocibuild.New(ctx)
	if err != nil {
		return err
	}
	var files string
	for name, spec := range map[string]ocibuild.Spec{
		shell:             ocibuild.Catalogue()[shell],
		ocibuild.Operator: ocibuild.Catalogue()[ocibuild.Operator],
		testimage: {
			Programs: map[string]ocibuild.Program{"/testimage": {Package: "./e2e/testimage"}},
			Dirs:     ocibuild.Catalogue()[shell].Dirs,
			Config:   v1.Config{Entrypoint: []string{"/testimage"}, Cmd: []string{"serve"}},
		},
	} {
		file, err := b.Build(ctx, name, spec)
		if err != nil {
			return err
		}
		files += string(filepath.ListSeparator) + file
	}
	manifests, err := operatorManifests()
	if err != nil {
		return err
	}
	return errors.Join(os.Setenv(imagesVariable, files[1:]), os.Setenv(operatorVariable, manifests))
}

// placeImages puts the files of the images into the folder that becomes a
// machine's /tmp, which may cover the checkout, and says what they are called in
// there.
func placeImages(dir string) (string, error) {
	var files []string
	for _, file := range filepath.SplitList(os.Getenv(imagesVariable)) {
		name := filepath.Base(file)
		if err := place(file, filepath.Join(dir, name)); err != nil {
			return "", fmt.Errorf("give the machine %s: %w", name, err)
		}
		files = append(files, filepath.Join("/tmp", name))
	}
	return strings.Join(files, string(filepath.ListSeparator)), nil
}

// hansaBinary is the binary under test: the machine's, once there is one.
func hansaBinary() string {
	if os.Getenv(roleVariable) == "" {
		return "../bin/hansa"
	}
	return "/tmp/hansa"
}

// importImages gives the cluster's node the images.
func (c *cluster) importImages() error {
	for _, file := range filepath.SplitList(os.Getenv(imagesVariable)) {
		if _, err := c.hansa("image", "import", "--data-dir", c.dir, file); err != nil {
			return fmt.Errorf("import %s: %w", file, err)
		}
	}
	return nil
}
