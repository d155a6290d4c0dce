package cri

import (
	"context"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// endTask kills and deletes the task of a container that has one though its status
// says that it has not: containerd was killed during a start, and had looked at the
// container again before its shim was done. Such a container cannot be removed.
func (c *Client) endTask(ctx context.Context, id string) error {
	tasks := tasksapi.NewTasksClient(c.conn)
	ctx = inNamespace(ctx)
	for _, step := range []func() error{
		func() error {
			_, err := tasks.Kill(ctx, &tasksapi.KillRequest{ContainerID: id, Signal: uint32(unix.SIGKILL), All: true})
			return err
		},
		func() error { _, err := tasks.Wait(ctx, &tasksapi.WaitRequest{ContainerID: id}); return err },
		func() error { _, err := tasks.Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: id}); return err },
	} {
		switch err := step(); status.Code(err) {
		case codes.OK, codes.FailedPrecondition: // it has ended
		case codes.NotFound, codes.Unimplemented: // it is deleted, or this is not containerd
			return nil
		default:
			return wrap(err, "end task of container %s", id)
		}
	}
	return nil
}
