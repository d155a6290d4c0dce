package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
)

// check fails unless the URL answers 200.
func check(args []string) error {
	if len(args) != 1 {
		return errors.New("check takes a URL")
	}
	answer, err := fetcher.Get(args[0])
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return errors.New(answer.Status)
	}
	return nil
}

// account is where a pod finds what it needs to ask the API.
const account = "/var/run/secrets/kubernetes.io/serviceaccount"

// ask prints the API's answer to the pod's own service account.
func ask(args []string) error {
	if len(args) != 1 {
		return errors.New("ask takes a path of the API")
	}
	token, err := os.ReadFile(account + "/token")
	if err != nil {
		return err
	}
	roots, err := os.ReadFile(account + "/ca.crt")
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)
	r, err := http.NewRequest(http.MethodGet, "https://kubernetes.default.svc"+args[0], nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+string(token))
	c := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	answer, err := c.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	fmt.Println(answer.Status)
	_, err = io.Copy(os.Stdout, answer.Body)
	return err
}
