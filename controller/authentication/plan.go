package authentication

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Info is what a server behind this one has to know. Authorities are in PEM.
type Info struct {
	// ClientCA signs clients.
	ClientCA []byte
	// ProxyCA signs front proxies, of which those with ProxyNames are believed; none
	// of them: all. The headers are those in which they say who asks.
	ProxyCA                                              []byte
	ProxyNames                                           []string
	UserHeaders, UIDHeaders, GroupHeaders, ExtraPrefixes []string
}

// The keys of the ConfigMap.
const (
	clientCA = "client-ca-file"
	proxyCA  = "requestheader-client-ca-file"
)

// lists are the keys with lists of words.
func (i *Info) lists() map[string][]string {
	return map[string][]string{
		"requestheader-allowed-names":        i.ProxyNames,
		"requestheader-username-headers":     i.UserHeaders,
		"requestheader-uid-headers":          i.UIDHeaders,
		"requestheader-group-headers":        i.GroupHeaders,
		"requestheader-extra-headers-prefix": i.ExtraPrefixes,
	}
}

// plan is the ConfigMap as it should be: what it has, without authorities whose
// time is over, and what is missing.
func plan(have map[string]string, info Info, now time.Time) (map[string]string, error) {
	data := maps.Clone(have)
	if data == nil {
		data = map[string]string{}
	}
	for key, ours := range map[string][]byte{clientCA: info.ClientCA, proxyCA: info.ProxyCA} {
		if len(ours) == 0 {
			continue // this server has none
		}
		bundle, err := joined([]byte(have[key]), ours, now)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		data[key] = bundle
	}
	if len(info.ProxyCA) == 0 {
		return data, nil
	}
	for key, ours := range info.lists() {
		var list []string
		if text := have[key]; text != "" {
			if err := json.Unmarshal([]byte(text), &list); err != nil {
				return nil, fmt.Errorf("%s: %w", key, err)
			}
		}
		all := []string{}
		for _, word := range slices.Concat(list, ours) {
			if !slices.Contains(all, word) {
				all = append(all, word)
			}
		}
		text, err := json.Marshal(all)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		data[key] = string(text)
	}
	return data, nil
}

// joined puts two bundles into one, without what is there twice or has expired.
func joined(a, b []byte, now time.Time) (string, error) {
	var out bytes.Buffer
	var seen [][]byte
	for _, rest := range [][]byte{a, b} {
		for {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			if block.Type != "CERTIFICATE" {
				continue
			}
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return "", err
			}
			if now.After(cert.NotAfter) || slices.ContainsFunc(seen, func(s []byte) bool { return bytes.Equal(s, block.Bytes) }) {
				continue
			}
			seen = append(seen, block.Bytes)
			if err := pem.Encode(&out, &pem.Block{Type: block.Type, Bytes: block.Bytes}); err != nil {
				return "", err
			}
		}
	}
	return out.String(), nil
}
