package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"hansa.dev/hansa/bench/internal/rig"
)

// restarts kills the process of a pod's only container, each time of a new pod:
// the first restart comes without back-off.
func (b *bench) restarts(ctx context.Context) error {
	var begun, again []time.Duration
	for i := range *reactions {
		name := fmt.Sprintf("restart%d", i)
		at, err := b.restart(ctx, name)
		if err != nil {
			return fmt.Errorf("pod %s: %w", name, err)
		}
		begun, again = append(begun, at[0]), append(again, at[1])
	}
	b.Spread("restart_begun", begun)
	b.Spread("restart_running", again)
	return nil
}

func (b *bench) restart(ctx context.Context, name string) (took [2]time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if _, err := b.one(ctx, name); err != nil {
		return took, err
	}
	var begun, again time.Time
	seen, err := watch(ctx, b.watcher, events+"?watch=true&fieldSelector=reason%3DPulled,involvedObject.name%3D"+name, func(e rig.Event[corev1.Event]) (bool, error) {
		begun = time.Now()
		return e.Object.Count > 1 || e.Object.Series != nil, nil
	})
	if err != nil {
		return took, err
	}
	running, err := watch(ctx, b.watcher, named(pods, name), func(e rig.Event[corev1.Pod]) (bool, error) {
		for _, c := range e.Object.Status.ContainerStatuses {
			if c.RestartCount == 1 && c.State.Running != nil {
				again = time.Now()
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return took, err
	}
	pid, err := b.workload("sh")
	if err != nil {
		return took, err
	}
	killed := time.Now()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		return took, err
	}
	if err := <-running; err != nil {
		return took, err
	}
	if err := <-seen; err != nil {
		return took, err
	}
	_, err = b.remove(ctx, name)
	return [2]time.Duration{begun.Sub(killed), again.Sub(killed)}, err
}

// workload is the process with a name, of which pods have only one.
func (b *bench) workload(name string) (pid int, err error) {
	ps, err := b.cluster.Processes()
	if err != nil {
		return 0, err
	}
	for _, p := range ps {
		if p.Name == name {
			if pid != 0 {
				return 0, fmt.Errorf("there are several processes %q", name)
			}
			pid = p.PID
		}
	}
	if pid == 0 {
		return 0, fmt.Errorf("there is no process %q", name)
	}
	return pid, nil
}

// endpoints lets the readiness probe of a service's only pod fail.
func (b *bench) endpoints(ctx context.Context) error {
	var gone []time.Duration
	for i := range *reactions {
		name := fmt.Sprintf("endpoint%d", i)
		d, err := b.endpoint(ctx, name)
		if err != nil {
			return fmt.Errorf("service %s: %w", name, err)
		}
		gone = append(gone, d)
	}
	b.Spread("endpoint_gone", gone)
	return nil
}

func (b *bench) endpoint(ctx context.Context, name string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	labels := map[string]string{"app": name}
	service := corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}}},
	}
	if err := b.writer.Call(ctx, http.MethodPost, services, service, &service); err != nil {
		return 0, err
	}
	address := net.JoinHostPort(service.Spec.ClusterIP, "80")
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Spec: serverSpec(1)}
	if err := b.writer.Call(ctx, http.MethodPost, pods, pod, nil); err != nil {
		return 0, err
	}
	if _, err := until(ctx, address, true); err != nil {
		return 0, err
	}
	pid, err := b.workload("httpd")
	if err != nil {
		return 0, err
	}
	if err := os.Remove(fmt.Sprintf("/proc/%d/root/tmp/www/ready", pid)); err != nil {
		return 0, err
	}
	refused, err := until(ctx, address, false)
	if err != nil {
		return 0, err
	}
	failed, err := b.firstFailure(ctx, name)
	if err != nil {
		return 0, err
	}
	if _, err := b.remove(ctx, name); err != nil {
		return 0, err
	}
	return refused.Sub(failed), b.writer.Call(ctx, http.MethodDelete, services+"/"+name, nil, nil)
}

// until connects again and again, and says when that went as is wanted.
func until(ctx context.Context, address string, connects bool) (time.Time, error) {
	dialer := net.Dialer{Timeout: time.Second}
	for {
		began := time.Now()
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			conn.Close() //nolint:errcheck // nothing was sent
		}
		if (err == nil) == connects {
			return began, nil
		}
		if err := rig.Wait(ctx, time.Millisecond); err != nil {
			return time.Time{}, err
		}
	}
}

// firstFailure is when the server answered a probe with an error, by its log.
func (b *bench) firstFailure(ctx context.Context, name string) (time.Time, error) {
	log, err := b.watcher.Open(ctx, http.MethodGet, pods+"/"+name+"/log?timestamps=true", "", nil)
	if err != nil {
		return time.Time{}, err
	}
	defer log.Close()
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		if at, text, ok := strings.Cut(lines.Text(), " "); ok && strings.Contains(text, "response:404") {
			return time.Parse(time.RFC3339Nano, at)
		}
	}
	return time.Time{}, errors.Join(errors.New("the server's log has no failed probe"), lines.Err())
}
