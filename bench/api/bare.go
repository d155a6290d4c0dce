package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/bench/internal/rig"
	"hansa.dev/hansa/pki"
	"hansa.dev/hansa/store"
	"hansa.dev/hansa/store/etcd"
)

// bareVariable is set, to its data directory, for the process that is the bare
// server.
const bareVariable = "HANSA_BENCH_BARE"

// runBare measures the bare server, in a process of its own.
func runBare(ctx context.Context, r *rig.Rig) (_ rates, err error) {
	dir, err := os.MkdirTemp("", "hansa-bench-bare-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), bareVariable+"="+dir)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	defer func() {
		cmd.Process.Signal(unix.SIGTERM) //nolint:errcheck // Wait tells
		err = errors.Join(err, cmd.Wait())
	}()
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		return nil, fmt.Errorf("did not start: %w", err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(dir, "kubeconfig"))
	if err != nil {
		return nil, err
	}
	security, err := rest.TLSConfigFor(config)
	if err != nil {
		return nil, err
	}
	l := newLoad(r, rig.Target{URL: config.Host, TLS: security}, nil)
	defer l.close()
	return l.writes(ctx, "bare_")
}

// bareMain is the main function of the bare server.
func bareMain(dir string) {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	err := serveBare(ctx, dir)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bare server:", err)
		os.Exit(1)
	}
}

func serveBare(ctx context.Context, dir string) error {
	authority, err := pki.Open(filepath.Join(dir, "pki"), pki.Options{Clock: clock.RealClock{}})
	if err != nil {
		return err
	}
	engine, err := etcd.Start(ctx, etcd.Options{Dir: filepath.Join(dir, "etcd")})
	if err != nil {
		return err
	}
	defer engine.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	security := authority.ServerTLS(pki.APIServerNames("cluster.local", netip.MustParseAddr("10.43.0.1"), "127.0.0.1"))
	security.NextProtos = []string{"h2"}
	server := &http.Server{Handler: &bareServer{engine}, TLSConfig: security}
	if _, err := authority.WriteAdminKubeconfig(filepath.Join(dir, "kubeconfig"), "https://"+listener.Addr().String()); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	fmt.Println("ready")
	if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// bareServer keeps ConfigMaps as JSON in etcd and looks at nothing but their
// names.
type bareServer struct{ engine store.Engine }

func (s *bareServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	code, answer, err := s.answer(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", rig.JSON)
	w.WriteHeader(code)
	w.Write(answer) //nolint:errcheck // the client has gone
}

func (s *bareServer) answer(r *http.Request) (int, []byte, error) {
	if r.Method == http.MethodPost {
		b, err := s.create(r)
		return http.StatusCreated, b, err
	}
	_, name, ok := strings.Cut(r.URL.Path, "/configmaps/")
	if !ok {
		return 0, nil, fmt.Errorf("%s %s is nothing", r.Method, r.URL.Path)
	}
	var b []byte
	var err error
	switch r.Method {
	case http.MethodGet:
		var cm *corev1.ConfigMap
		if cm, err = s.read(r.Context(), name); err == nil {
			b, err = json.Marshal(cm)
		}
	case http.MethodPatch:
		b, err = s.patch(r, name)
	case http.MethodDelete:
		b = []byte("{}")
		_, err = s.put(r.Context(), store.Put{Key: key(name), Delete: true})
	}
	return http.StatusOK, b, err
}

func key(name string) string { return "/registry/configmaps/load/" + name }

func (s *bareServer) create(r *http.Request) ([]byte, error) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	cm := &corev1.ConfigMap{}
	if err := json.Unmarshal(data, cm); err != nil {
		return nil, err
	}
	cm.Namespace, cm.UID, cm.CreationTimestamp = "load", uuid.NewUUID(), metav1.Now()
	return s.write(r.Context(), cm, 0)
}

func (s *bareServer) write(ctx context.Context, cm *corev1.ConfigMap, mod int64) ([]byte, error) {
	cm.ResourceVersion = ""
	value, err := json.Marshal(cm)
	if err != nil {
		return nil, err
	}
	revision, err := s.put(ctx, store.Put{Key: key(cm.Name), Value: value}, store.Condition{Key: key(cm.Name), Revision: mod})
	if err != nil {
		return nil, err
	}
	cm.ResourceVersion = strconv.FormatInt(revision, 10)
	return json.Marshal(cm)
}

var errConflict = errors.New("somebody else wrote it")

func (s *bareServer) put(ctx context.Context, p store.Put, guards ...store.Condition) (int64, error) {
	resp, err := s.engine.Txn(ctx, []store.Step{{If: guards, Then: []store.Put{p}}})
	if err != nil {
		return 0, err
	}
	if !resp.Steps[0].OK {
		return 0, errConflict
	}
	return resp.Revision, nil
}

func (s *bareServer) read(ctx context.Context, name string) (*corev1.ConfigMap, error) {
	resp, err := s.engine.Range(ctx, store.RangeRequest{Start: key(name)})
	if err != nil {
		return nil, err
	}
	if len(resp.KVs) == 0 {
		return nil, fmt.Errorf("there is no %s", name)
	}
	cm := &corev1.ConfigMap{}
	if err := json.Unmarshal(resp.KVs[0].Value, cm); err != nil {
		return nil, err
	}
	cm.ResourceVersion = strconv.FormatInt(resp.KVs[0].ModRevision, 10)
	return cm, nil
}

func (s *bareServer) patch(r *http.Request, name string) ([]byte, error) {
	patch, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(time.Second); ; {
		cm, err := s.read(r.Context(), name)
		if err != nil {
			return nil, err
		}
		mod, err := strconv.ParseInt(cm.ResourceVersion, 10, 64)
		if err != nil {
			return nil, err
		}
		old, err := json.Marshal(cm)
		if err != nil {
			return nil, err
		}
		patched, err := jsonpatch.MergePatch(old, patch)
		if err != nil {
			return nil, err
		}
		cm = &corev1.ConfigMap{}
		if err := json.Unmarshal(patched, cm); err != nil {
			return nil, err
		}
		answer, err := s.write(r.Context(), cm, mod)
		if !errors.Is(err, errConflict) || time.Now().After(deadline) {
			return answer, err
		}
	}
}

// countLines reads that many lines.
func countLines(r io.Reader, n int) error {
	buf := make([]byte, 64<<10)
	for n > 0 {
		read, err := r.Read(buf)
		n -= bytes.Count(buf[:read], []byte{'\n'})
		if err != nil && n > 0 {
			return fmt.Errorf("the watch ended %d events early: %w", n, err)
		}
	}
	return nil
}
