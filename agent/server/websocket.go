package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"hansa.dev/hansa/runtime"
)

// statusDeadline is for telling the client how the command ended.
const statusDeadline = 10 * time.Second

// connectV5 serves a command over WebSocket with v5.channel.k8s.io, in which
// the client can close its input and go on reading.
func (s *Server) connectV5(w http.ResponseWriter, r *http.Request, doing string, o *remotecommand.Options, f command) {
	channels := make([]wsstream.ChannelType, 5)
	open := func(channel int, on bool, kind wsstream.ChannelType) {
		channels[channel] = wsstream.IgnoreChannel
		if on {
			channels[channel] = kind
		}
	}
	open(remotecommand.StreamStdIn, o.Stdin, wsstream.ReadChannel)
	open(remotecommand.StreamStdOut, o.Stdout, wsstream.WriteChannel)
	open(remotecommand.StreamStdErr, o.Stderr, wsstream.WriteChannel)
	open(remotecommand.StreamErr, true, wsstream.WriteChannel)
	open(remotecommand.StreamResize, true, wsstream.ReadChannel)
	conn := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{
		remotecommand.StreamProtocolV5Name: {Binary: true, Channels: channels},
	})
	conn.SetIdleTimeout(s.idleTimeout())
	_, streams, err := conn.Open(w, r)
	if err != nil {
		s.Log.Debug("node API: no connection upgrade", "err", err)
		return
	}
	defer conn.Close()
	// An empty message says that the connection stands.
	for _, i := range []int{remotecommand.StreamStdOut, remotecommand.StreamStdErr, remotecommand.StreamErr} {
		if channels[i] == wsstream.WriteChannel {
			if _, err := streams[i].Write(nil); err != nil {
				return
			}
			break
		}
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	in := runtime.Streams{TTY: o.TTY, Resize: decodeSizes(ctx, streams[remotecommand.StreamResize])}
	if o.Stdin {
		in.Stdin = streams[remotecommand.StreamStdIn]
	}
	if o.Stdout {
		in.Stdout = streams[remotecommand.StreamStdOut]
	}
	if o.Stderr {
		in.Stderr = streams[remotecommand.StreamStdErr]
	}
	data, err := json.Marshal(outcome(doing, f(ctx, in)))
	if err != nil {
		s.Log.Error("node API: encode outcome", "err", err)
		return
	}
	conn.SetWriteDeadline(statusDeadline)
	if _, err := streams[remotecommand.StreamErr].Write(data); err != nil {
		s.Log.Debug("node API: client went away", "err", err)
	}
}

// outcome tells how a command ended, in the form that clients take the exit
// code from.
func outcome(doing string, err error) *metav1.Status {
	if err == nil {
		return &metav1.Status{Status: metav1.StatusSuccess}
	}
	var exit *runtime.ExitError
	if errors.As(err, &exit) {
		return &metav1.Status{
			Status:  metav1.StatusFailure,
			Reason:  remotecommand.NonZeroExitCodeReason,
			Message: fmt.Sprintf("command terminated with non-zero exit code: exit code %d", exit.Code),
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: remotecommand.ExitCodeCauseType, Message: strconv.Itoa(exit.Code)}}},
		}
	}
	return &metav1.Status{
		Status: metav1.StatusFailure, Reason: metav1.StatusReasonInternalError, Code: http.StatusInternalServerError,
		Message: fmt.Sprintf("Internal error occurred: error %s: %v", doing, err),
	}
}

func decodeSizes(ctx context.Context, stream io.Reader) <-chan runtime.TerminalSize {
	out := make(chan runtime.TerminalSize)
	go func() {
		defer close(out)
		dec := json.NewDecoder(stream)
		for {
			var size struct{ Width, Height uint16 }
			if dec.Decode(&size) != nil {
				return
			}
			select {
			case out <- runtime.TerminalSize{Width: size.Width, Height: size.Height}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}
