package cri_test

import (
	"fmt"
	"os"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// A container is removed though it has a task of which its status knows nothing, as
// when containerd was killed while it started the container.
func TestRemovedWithTask(t *testing.T) {
	c := config(t)
	t.Cleanup(func() { down(t, c) })
	_, client := up(t, c)
	if _, err := client.ImportImage(t.Context(), busybox(t)); err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("unix:"+c.Endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	tasks := tasksapi.NewTasksClient(conn)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "containerd-namespace", "k8s.io")
	for _, runs := range []bool{false, true} {
		name := "created"
		if runs {
			name = "running"
		}
		id := created(t, client, c, name, "exec sleep 1000")
		mounts, err := snapshotsapi.NewSnapshotsClient(conn).Mounts(ctx, &snapshotsapi.MountsRequest{Snapshotter: "overlayfs", Key: id})
		if err != nil {
			t.Fatal(err)
		}
		task, err := tasks.Create(ctx, &tasksapi.CreateTaskRequest{ContainerID: id, Rootfs: mounts.Mounts})
		if err != nil {
			t.Fatal(err)
		}
		if runs {
			if _, err := tasks.Start(ctx, &tasksapi.StartRequest{ContainerID: id}); err != nil {
				t.Fatal(err)
			}
		}
		if err := client.RemoveContainer(t.Context(), id); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", task.Pid)); err == nil {
			t.Errorf("%s: its process is there", name)
		}
		if _, err := client.ContainerStatus(t.Context(), id); err == nil {
			t.Errorf("%s: it is there", name)
		}
	}
}
