package main

import (
	"bytes"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

func main() {
	n := flag.Int("n", 20000, "")
	conns := flag.Int("c", 64, "")
	get := flag.Bool("get", false, "")
	base := flag.String("u", "https://127.0.0.1:16443", "")
	run := flag.String("run", fmt.Sprint(time.Now().UnixNano()), "")
	flag.Parse()
	var next atomic.Int64
	var wg sync.WaitGroup
	var bad atomic.Int64
	pad := strings.Repeat("x", 400)
	hc := make([]*http.Client, *conns)
	for i := range hc {
		hc[i] = &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}}}
		resp, err := hc[i].Get(*base + "/readyz")
		if err != nil {
			panic(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	start := time.Now()
	for i := 0; i < *conns; i++ {
		wg.Add(1)
		go func(c *http.Client) {
			defer wg.Done()
			for {
				k := next.Add(1)
				if k > int64(*n) {
					return
				}
				name := fmt.Sprintf("cm-%s-%d", *run, k)
				var req *http.Request
				if *get {
					req, _ = http.NewRequest("GET", *base+"/api/v1/namespaces/d2/configmaps/"+name, nil)
				} else {
					body := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"` + name + `","namespace":"d2"},"data":{"k":"` + pad + `"}}`
					req, _ = http.NewRequest("POST", *base+"/api/v1/namespaces/d2/configmaps", bytes.NewReader([]byte(body)))
					req.Header.Set("Content-Type", "application/json")
				}
				req.Header.Set("User-Agent", "load/1")
				resp, err := c.Do(req)
				if err != nil {
					bad.Add(1)
					continue
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode >= 300 {
					bad.Add(1)
				}
			}
		}(hc[i])
	}
	wg.Wait()
	d := time.Since(start)
	fmt.Printf("%d in %v: %.0f/s bad=%d run=%s\n", *n, d, float64(*n)/d.Seconds(), bad.Load(), *run)
}
