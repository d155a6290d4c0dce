package http_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"hansa.dev/hansa/apiserver/request/codec"
)

// labelled are the objects that selectors choose from: every value of two
// labels, none included.
func labelled(f *fuzzed) map[string]labels.Set {
	f.t.Helper()
	all := map[string]labels.Set{}
	for _, a := range []string{"-", "", "1", "2", "10"} {
		for _, b := range []string{"-", "", "x"} {
			set := labels.Set{}
			if a != "-" {
				set["a"] = a
			}
			if b != "-" {
				set["example.com/b"] = b
			}
			name := fmt.Sprint("s-", len(all))
			body, err := json.Marshal(map[string]any{"metadata": map[string]any{"name": name, "labels": set}})
			if err != nil {
				f.t.Fatal(err)
			}
			if a := f.do(call{method: "POST", path: configMaps, body: string(body)}); a.code != http.StatusCreated {
				f.t.Fatalf("create %s: %s", body, a.body)
			}
			all[name] = set
		}
	}
	return all
}

// listed is a page of names.
type listed struct {
	Metadata metav1.ListMeta
	Items    []metav1.PartialObjectMetadata
}

func (l listed) names() []string {
	var names []string
	for _, item := range l.Items {
		names = append(names, item.Name)
	}
	return names
}

// list reads a list, ok when it is not refused.
func (f *fuzzed) list(query url.Values) (l listed, ok bool) {
	f.t.Helper()
	a := f.do(call{path: configMaps + "?" + query.Encode()})
	if a.code != http.StatusOK {
		return l, false
	}
	if err := json.Unmarshal(a.body, &l); err != nil {
		f.t.Fatal(err)
	}
	return l, true
}

// FuzzSelectors compares what lists show, by whichever index, with asking every
// object.
// https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
func FuzzSelectors(f *testing.F) {
	for _, seed := range [][2]string{
		{"", ""}, {"a=1", ""}, {"a==1,a=2", ""}, {"a in (1,2)", ""}, {"a in (1),a notin (1)", ""}, {"a", ""}, {"!a", ""}, {"a!=1", ""}, {"a=", ""}, {"a in ()", ""}, {"a in (,1)", ""},
		{"a>1", ""}, {"a<3,a>x", ""}, {"a gt 1", ""}, {"example.com/b=x,a in (1)", ""}, {"a=1=2", ""}, {",", ""}, {"a,,b", ""}, {"a in (1", ""}, {"A/b/c=1", ""}, {"a=-", ""},
		{"", "metadata.name=s-1"}, {"", "metadata.name!=s-1"}, {"a=1", "metadata.name=s-7,metadata.namespace=default"}, {"", "metadata.name=s-1,metadata.name=s-2"},
		{"", "metadata.name="}, {"", `metadata.name=\,`}, {"", `metadata.name=\x`}, {"", "metadata.namespace=other"}, {"", "x"}, {"", "=x"}, {"", "metadata.name==s-3"}, {"", "metadata.name=a/b"}, {"", "metadata.name=.."},
	} {
		f.Add(seed[0], seed[1])
	}
	srv := newFuzzed(f)
	all := labelled(srv)
	f.Fuzz(func(t *testing.T, byLabel, byField string) {
		srv := srv.with(t)
		query := url.Values{"labelSelector": {byLabel}, "fieldSelector": {byField}}
		got, ok := srv.list(query)
		ls, labelErr := labels.Parse(byLabel)
		fs, fieldErr := fields.ParseSelector(byField)
		if labelErr != nil || fieldErr != nil {
			if ok {
				t.Fatalf("%q %q is no selector and was taken", byLabel, byField)
			}
			return
		}
		if !ok {
			for _, r := range fs.Requirements() {
				if r.Field != "metadata.name" && r.Field != "metadata.namespace" {
					return
				}
				// A name that no object can have.
				if r.Field == "metadata.name" {
					return
				}
			}
			t.Fatalf("%q %q is refused", byLabel, byField)
		}
		var want []string
		for name, set := range all {
			if ls.Matches(set) && fs.Matches(fields.Set{"metadata.name": name, "metadata.namespace": "default"}) {
				want = append(want, name)
			}
		}
		slices.Sort(want)
		if !slices.Equal(got.names(), want) {
			t.Fatalf("%q %q selects %q, want %q", byLabel, byField, got.names(), want)
		}
		// Page by page it is the same.
		query.Set("limit", "2")
		var paged []string
		for {
			page, ok := srv.list(query)
			if !ok {
				t.Fatalf("a page of %q %q is refused", byLabel, byField)
			}
			paged = append(paged, page.names()...)
			if page.Metadata.Continue == "" {
				break
			}
			query.Set("continue", page.Metadata.Continue)
		}
		if !slices.Equal(paged, want) {
			t.Fatalf("pages of %q %q show %q, want %q", byLabel, byField, paged, want)
		}
	})
}

// FuzzContinue lists with tokens, whole or made of parts. A token shows nothing
// outside of what its request may see, and goes on where it says.
// https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks
func FuzzContinue(f *testing.F) {
	srv := newFuzzed(f)
	all := labelled(srv)
	first, _ := srv.list(url.Values{"limit": {"3"}})
	newest, err := strconv.ParseInt(first.Metadata.ResourceVersion, 10, 64)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(first.Metadata.Continue, int64(0), "", int64(3))
	for _, start := range []string{"default/s-3\x00", "default/s-3", "", "/", "..", "default", "zzz", "\x00", "\xff", "default/\xff\xff", "../../secrets/", "kube-system/x"} {
		for _, rv := range []int64{-1, 0, 1, 128, newest, newest - 128, -2} {
			f.Add("", rv, start, int64(4))
		}
	}
	for _, text := range []string{"x", "{}", "e30", "e30=", "bnVsbA", "W10", "MQ"} {
		f.Add(text, int64(0), "", int64(1))
	}
	f.Fuzz(func(t *testing.T, token string, rv int64, start string, limit int64) {
		srv := srv.with(t)
		if token == "" {
			text, err := json.Marshal(map[string]any{"v": "meta.k8s.io/v1", "rv": rv, "start": start})
			if err != nil {
				t.Fatal(err)
			}
			token = base64.RawURLEncoding.EncodeToString(text)
		}
		var parts struct {
			RV    int64  `json:"rv"`
			Start string `json:"start"`
		}
		if text, err := base64.RawURLEncoding.DecodeString(token); err == nil && json.Unmarshal(text, &parts) == nil && parts.RV > newest {
			return // a version that is still to come is waited for
		}
		for _, query := range []url.Values{
			{"continue": {token}, "limit": {strconv.FormatInt(limit, 10)}},
			{"continue": {token}, "limit": {strconv.FormatInt(limit, 10)}, "labelSelector": {"a=1"}},
		} {
			l, ok := srv.list(query)
			if !ok {
				continue
			}
			names := l.names()
			for _, name := range names {
				if all[name] == nil || "default/"+name < parts.Start {
					t.Fatalf("from %q on %q is shown", parts.Start, name)
				}
			}
			if !slices.IsSorted(names) || limit > 0 && int64(len(names)) > limit {
				t.Fatalf("of at most %d there are %q", limit, names)
			}
		}
	})
}

// FuzzDelete deletes with options in all encodings, one object and many.
func FuzzDelete(f *testing.F) {
	for _, seed := range []string{
		`{}`, `null`, `[]`, `1`, `{"kind":"DeleteOptions","apiVersion":"v1"}`, `{"kind":"DeleteOptions","apiVersion":"apps/v1"}`, `{"kind":"DeleteOptions"}`, `{"kind":"Pod","apiVersion":"v1"}`,
		`{"gracePeriodSeconds":-1}`, `{"gracePeriodSeconds":9223372036854775807}`, `{"gracePeriodSeconds":"x"}`, `{"preconditions":{"uid":"x"}}`, `{"preconditions":{"resourceVersion":"1"}}`, `{"preconditions":[]}`,
		`{"orphanDependents":true}`, `{"orphanDependents":true,"propagationPolicy":"Orphan"}`, `{"propagationPolicy":"Foreground"}`, `{"propagationPolicy":"x"}`, `{"dryRun":["All"]}`, `{"dryRun":["x"]}`, `{"ignoreStoreReadErrorWithClusterBreakingPotential":true}`,
	} {
		for many := range 2 {
			f.Add(uint8(0), many == 1, []byte(seed))
			f.Add(uint8(1), many == 1, []byte(seed))
			f.Add(uint8(3), many == 1, asCBOR(f, []byte(seed)))
		}
	}
	f.Add(uint8(2), false, []byte("k8s\x00\x0a\x13\x0a\x02v1\x12\x0dDeleteOptions\x12\x00\x1a\x00\x22\x00"))
	f.Add(uint8(2), true, []byte("k8s\x00\x12\x02\x08\x01"))
	srv := newFuzzed(f)
	const pods = "/api/v1/namespaces/default/pods"
	f.Fuzz(func(t *testing.T, media uint8, many bool, body []byte) {
		srv := srv.with(t)
		for path, object := range map[string]string{
			configMaps: `{"metadata":{"name":"d"}}`,
			pods:       `{"metadata":{"name":"d"},"spec":{"nodeName":"n","containers":[{"name":"c","image":"i"}]}}`,
		} {
			srv.do(call{method: "POST", path: path, body: object})
			if !many {
				path += "/d"
			}
			srv.do(call{method: "DELETE", path: path, body: string(body), contentType: string(codec.MediaTypes[int(media)%len(codec.MediaTypes)])})
		}
	})
}
