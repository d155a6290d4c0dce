package kinds

import (
	"net/url"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
)

func TestConnectOptionsFromQuery(t *testing.T) {
	for query, want := range map[string]runtime.Object{
		"container=a&follow=true&tailLines=5&timestamps=0&previous=false": &corev1.PodLogOptions{Container: "a", Follow: true, TailLines: ptr.To[int64](5)},
		"command=sh&command=-c&command=ls&stdin=true&stdout=1&tty":        &corev1.PodExecOptions{Command: []string{"sh", "-c", "ls"}, Stdin: true, Stdout: true, TTY: true},
		"sinceTime=&stream=": &corev1.PodLogOptions{SinceTime: &metav1.Time{}},
		"ports=80&ports=443": &corev1.PodPortForwardOptions{Ports: []int32{80, 443}},
		"ports=80,443":       &corev1.PodPortForwardOptions{Ports: []int32{80, 443}},
		"path=a/b":           &corev1.ServiceProxyOptions{Path: "a/b"},
	} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		got := reflect.New(reflect.TypeOf(want).Elem()).Interface().(runtime.Object)
		if err := runtime.NewParameterCodec(Scheme()).DecodeParameters(q, corev1.SchemeGroupVersion, got); err != nil {
			t.Errorf("%s: %v", query, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", query, diff)
		}
	}
}

func TestConnectOptionsRefuseGarbage(t *testing.T) {
	for query, want := range map[string]string{
		"tailLines=x": `strconv.ParseInt: parsing "x": invalid syntax`, "tailLines=": `strconv.ParseInt: parsing "": invalid syntax`,
		"limitBytes=1.5": `strconv.ParseInt: parsing "1.5": invalid syntax`, "ports=80&ports=x": `cannot convert to []int32: strconv.ParseUint: parsing "x": invalid syntax`,
		"sinceTime=yesterday": `parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006"`,
	} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		var into runtime.Object = &corev1.PodLogOptions{}
		if q.Has("ports") {
			into = &corev1.PodPortForwardOptions{}
		}
		if err := runtime.NewParameterCodec(Scheme()).DecodeParameters(q, corev1.SchemeGroupVersion, into); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", query, err, want)
		}
	}
}
