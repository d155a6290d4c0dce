package main

import (
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
	"time"

	"golang.org/x/sys/unix"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/bench/internal/rig"
	"hansa.dev/hansa/pki"
	"hansa.dev/hansa/store"
	"hansa.dev/hansa/store/etcd"
)

// bareVariable is set, to its data directory, for the process that is the bare
// server.
const bareVariable = "HANSA_BENCH_BARE"

func startBare(ctx context.Context, _ *rig.Rig) (*server, error) {
	dir, err := os.MkdirTemp("", "hansa-bench-bare-")
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), bareVariable+"="+dir)
	s, err := startProgram(ctx, dir, configMaps, cmd)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
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
	w.Header().Set("Content-Type", rig.JSON)
	namespace, name, err := parts(r.URL.Path)
	if err == nil && r.Method == http.MethodGet && name == "" {
		if err := s.list(w, r, namespace); err != nil {
			panic(http.ErrAbortHandler) // the client sees it cut short
		}
		return
	}
	var code int
	var answer []byte
	if err == nil {
		code, answer, err = s.answer(r, namespace, name)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.WriteHeader(code)
	w.Write(answer) //nolint:errcheck // the client has gone
}

func (s *bareServer) answer(r *http.Request, namespace, name string) (code int, b []byte, err error) {
	key := prefix(namespace) + name
	switch r.Method {
	case http.MethodPost:
		b, err = s.create(r, namespace)
		return http.StatusCreated, b, err
	case http.MethodGet:
		var cm *corev1.ConfigMap
		if cm, err = s.read(r.Context(), key); err == nil {
			b, err = json.Marshal(cm)
		}
	case http.MethodPatch:
		b, err = s.patch(r, key)
	case http.MethodDelete:
		b = []byte("{}")
		_, err = s.put(r.Context(), store.Put{Key: key, Delete: true})
	default:
		err = fmt.Errorf("there is no %s", r.Method)
	}
	return http.StatusOK, b, err
}

// parts are the namespace and the name, "" for a collection, of a path.
func parts(path string) (namespace, name string, err error) {
	rest, ok := strings.CutPrefix(path, "/api/v1/namespaces/")
	namespace, rest, _ = strings.Cut(rest, "/")
	rest, isMaps := strings.CutPrefix(rest, "configmaps")
	if !ok || !isMaps {
		return "", "", fmt.Errorf("%s is nothing", path)
	}
	return namespace, strings.TrimPrefix(rest, "/"), nil
}

func prefix(namespace string) string { return "/registry/configmaps/" + namespace + "/" }

func (s *bareServer) create(r *http.Request, namespace string) ([]byte, error) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	cm := &corev1.ConfigMap{}
	if err := json.Unmarshal(data, cm); err != nil {
		return nil, err
	}
	cm.Namespace, cm.UID, cm.CreationTimestamp = namespace, uuid.NewUUID(), metav1.Now()
	return s.write(r.Context(), cm, 0)
}

func (s *bareServer) write(ctx context.Context, cm *corev1.ConfigMap, mod int64) ([]byte, error) {
	cm.ResourceVersion = ""
	value, err := json.Marshal(cm)
	if err != nil {
		return nil, err
	}
	key := prefix(cm.Namespace) + cm.Name
	revision, err := s.put(ctx, store.Put{Key: key, Value: value}, store.Condition{Key: key, Revision: mod})
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

func (s *bareServer) read(ctx context.Context, key string) (*corev1.ConfigMap, error) {
	resp, err := s.engine.Range(ctx, store.RangeRequest{Start: key})
	if err != nil {
		return nil, err
	}
	if len(resp.KVs) == 0 {
		return nil, fmt.Errorf("there is no %s", key)
	}
	cm := &corev1.ConfigMap{}
	if err := json.Unmarshal(resp.KVs[0].Value, cm); err != nil {
		return nil, err
	}
	cm.ResourceVersion = strconv.FormatInt(resp.KVs[0].ModRevision, 10)
	return cm, nil
}

// listPage is how many objects of a list are read at a time.
const listPage = 500

// list writes what is in etcd as it is there, with its version put in.
func (s *bareServer) list(w io.Writer, r *http.Request, namespace string) error {
	from := prefix(namespace)
	req := store.RangeRequest{Start: from, End: from[:len(from)-1] + "0", Limit: listPage} // '0' follows '/'
	var page []byte
	for more := true; more; {
		resp, err := s.engine.Range(r.Context(), req)
		if err != nil {
			return err
		}
		page = page[:0]
		if req.Revision == 0 {
			req.Revision = resp.Revision // of all pages
			page = fmt.Appendf(page, `{"apiVersion":"v1","kind":"ConfigMapList","metadata":{"resourceVersion":"%d"},"items":[`, resp.Revision)
		} else {
			page = append(page, ',')
		}
		for i, kv := range resp.KVs {
			if i > 0 {
				page = append(page, ',')
			}
			before, after, _ := bytes.Cut(kv.Value, metadata)
			page = append(append(page, before...), metadata...)
			page = fmt.Appendf(page, `"resourceVersion":"%d",`, kv.ModRevision)
			page = append(page, after...)
			req.Start = kv.Key + "\x00"
		}
		if more = resp.More; !more {
			page = append(page, "]}"...)
		}
		if _, err := w.Write(page); err != nil {
			return err
		}
	}
	return nil
}

// metadata is what stands before an object's version.
var metadata = []byte(`"metadata":{`)

func (s *bareServer) patch(r *http.Request, key string) ([]byte, error) {
	patch, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(time.Second); ; {
		cm, err := s.read(r.Context(), key)
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
