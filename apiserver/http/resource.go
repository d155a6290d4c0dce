package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/aggregation"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/codec"
	"hansa.dev/hansa/store"
)

func gvr(t target) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: t.group, Version: t.version, Resource: t.plural}
}

// call is one request for a resource on its way.
type call struct {
	*Server
	w      *response
	r      *http.Request
	ctx    context.Context
	limit  time.Duration // that ctx began with
	info   *request.Info
	remote *aggregation.Remote // who answers in this server's place; nil: nobody
	target target
	q      url.Values
	out    output
	// started is called by a watch that has told of what there was.
	started func()
}

// dispatch answers a request for something that is served. An error is still
// to be sent.
func (c *call) dispatch() error {
	if connector := c.connector(c.info); connector != nil {
		return c.connect(c.w, c.r, c.info, c.target, connector)
	}
	if c.info.Verb == "watch" {
		return c.watch()
	}
	var err error
	if c.out, err = c.negotiate(c.r, offer{media: codec.MediaTypes, transforms: true, noTables: c.tableSpec() == nil, noProtobuf: c.info.IsTree()}); err != nil {
		return err
	}
	return c.run()
}

func (c *call) run() error {
	switch c.info.Verb {
	case "get":
		return c.get()
	case "list":
		return c.list()
	case "create":
		return c.create()
	case "update":
		return c.update()
	case "patch":
		return c.patch()
	case "delete":
		return c.delete()
	case "deletecollection":
		return c.deleteCollection()
	}
	return errMethod
}

// decodeQuery reads options from the query.
func (c *call) decodeQuery(into runtime.Object) error {
	if len(c.q) == 0 {
		return nil
	}
	var err error
	switch o := into.(type) {
	case *metav1.GetOptions:
		err = metav1.Convert_url_Values_To_v1_GetOptions(&c.q, o, nil)
	case *metav1.ListOptions:
		err = metav1.Convert_url_Values_To_v1_ListOptions(&c.q, o, nil)
	case *metav1.CreateOptions:
		err = metav1.Convert_url_Values_To_v1_CreateOptions(&c.q, o, nil)
	case *metav1.UpdateOptions:
		err = metav1.Convert_url_Values_To_v1_UpdateOptions(&c.q, o, nil)
	case *metav1.PatchOptions:
		err = metav1.Convert_url_Values_To_v1_PatchOptions(&c.q, o, nil)
	case *metav1.DeleteOptions:
		err = metav1.Convert_url_Values_To_v1_DeleteOptions(&c.q, o, nil)
	case *metav1.TableOptions:
		err = metav1.Convert_url_Values_To_v1_TableOptions(&c.q, o, nil)
	default:
		err = fmt.Errorf("no query form of %T", into)
	}
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	return nil
}

// body reads the request's body up to MaxBody.
func (c *call) body() ([]byte, error) {
	if c.r.ContentLength > MaxBody {
		return nil, tooLarge()
	}
	var data []byte
	var err error
	// Memory for a large one is taken as it comes.
	if n := c.r.ContentLength; n >= 0 && n <= largeBuffer {
		data = make([]byte, n)
		_, err = io.ReadFull(c.r.Body, data)
	} else if data, err = io.ReadAll(io.LimitReader(c.r.Body, MaxBody+1)); len(data) > MaxBody {
		return nil, tooLarge()
	}
	if err != nil {
		if errors.Is(c.ctx.Err(), context.DeadlineExceeded) {
			return nil, c.ctx.Err()
		}
		return nil, apierrors.NewBadRequest(fmt.Sprintf("read request body: %v", err))
	}
	return data, nil
}

func tooLarge() error {
	return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", MaxBody))
}

// read is the body of a write as the request layer wants it.
func (c *call) read() request.Body {
	return request.Body{Read: func() ([]byte, codec.MediaType, error) {
		media, err := bodyMedia(c.r)
		if err != nil {
			return nil, "", err
		}
		data, err := c.body()
		return data, media, err
	}}
}

func (c *call) get() error {
	if export, ok := c.q["export"]; ok && isTrue(export) {
		return apierrors.NewBadRequest("the export parameter, deprecated since v1.14, is no longer supported")
	}
	opts := &metav1.GetOptions{}
	if err := c.decodeQuery(opts); err != nil {
		return err
	}
	obj, err := c.Get(c.ctx, c.info, opts)
	if err != nil {
		return err
	}
	return c.send(http.StatusOK, obj)
}

func (c *call) listOptions() (*metav1.ListOptions, error) {
	opts := &metav1.ListOptions{}
	if err := c.decodeQuery(opts); err != nil {
		return nil, err
	}
	c.info.FieldSelector, c.info.LabelSelector = opts.FieldSelector, opts.LabelSelector
	if c.info.Verb != "deletecollection" && c.info.Name == "" {
		// Who asks for one object by its name may be allowed just that.
		c.info.Name = selectedName(opts.FieldSelector)
	}
	return opts, nil
}

func (c *call) list() error {
	opts, err := c.listOptions()
	if err != nil {
		return err
	}
	list, err := c.List(c.ctx, c.info, opts)
	if err != nil {
		return err
	}
	if all := c.info.Served.Version.FromHubAll; all != nil {
		objs, err := all(slices.Collect(list.Objects))
		if err != nil {
			return err
		}
		if err := list.Failed(); err != nil {
			return err
		}
		list.Objects = slices.Values(objs)
	}
	return c.sendList(list)
}

func (c *call) create() error {
	opts := &metav1.CreateOptions{}
	if err := c.decodeQuery(opts); err != nil {
		return err
	}
	obj, err := c.Create(c.ctx, c.info, c.read(), opts)
	if err != nil {
		return err
	}
	return c.send(http.StatusCreated, obj)
}

func (c *call) update() error {
	opts := &metav1.UpdateOptions{}
	if err := c.decodeQuery(opts); err != nil {
		return err
	}
	obj, created, err := c.Update(c.ctx, c.info, c.read(), opts)
	if err != nil {
		return err
	}
	return c.send(createdOr(created), obj)
}

func (c *call) patch() error {
	name, _, _ := strings.Cut(c.r.Header.Get("Content-Type"), ";")
	kind := types.PatchType(strings.TrimSpace(name))
	if all := c.patchTypes(); !slices.Contains(all, kind) {
		return unsupportedMedia(all)
	}
	opts := &metav1.PatchOptions{}
	if err := c.decodeQuery(opts); err != nil {
		return err
	}
	obj, created, err := c.Patch(c.ctx, c.info, kind, c.body, opts)
	if err != nil {
		return err
	}
	return c.send(createdOr(created), obj)
}

// patchTypes are those that the kind takes: what a strategic merge does is said by
// the tags of Go types, which custom resources lack.
func (c *call) patchTypes() []types.PatchType {
	if c.info.IsTree() {
		return slices.DeleteFunc(slices.Clone(request.PatchTypes), func(t types.PatchType) bool { return t == types.StrategicMergePatchType })
	}
	return request.PatchTypes
}

func createdOr(created bool) int {
	if created {
		return http.StatusCreated
	}
	return http.StatusOK
}

// deleteOptions come in the body, or for simple clients in the query.
func (c *call) deleteOptions() (*metav1.DeleteOptions, error) {
	opts := &metav1.DeleteOptions{}
	data, err := c.body()
	if err != nil {
		return nil, err
	}
	if len(data) == 0 {
		return opts, c.decodeQuery(opts)
	}
	if c.info.Audit != nil {
		c.info.Audit.Options = true
	}
	media, err := bodyMedia(c.r)
	if err != nil {
		return nil, err
	}
	return opts, c.Codec.DecodeOptions(data, media, opts)
}

func (c *call) delete() error {
	opts, err := c.deleteOptions()
	if err != nil {
		return err
	}
	obj, gone, err := c.Delete(c.ctx, c.info, opts)
	if err != nil {
		return err
	}
	code := http.StatusOK
	//lint:ignore SA1019 old clients still send it
	if !gone && opts.OrphanDependents != nil && !*opts.OrphanDependents {
		code = http.StatusAccepted
	}
	return c.send(code, obj)
}

func (c *call) deleteCollection() error {
	list, err := c.listOptions()
	if err != nil {
		return err
	}
	opts, err := c.deleteOptions()
	if err != nil {
		return err
	}
	deleted, err := c.DeleteCollection(c.ctx, c.info, opts, list)
	if err != nil {
		return err
	}
	return c.sendList(store.Page{Objects: slices.Values(deleted.Items), ResourceVersion: deleted.ResourceVersion, Continue: deleted.Continue, Remaining: deleted.Remaining})
}

// send answers with an object: a stored one in the agreed form, or a body of
// another kind as it is.
func (c *call) send(code int, obj runtime.Object) error {
	if status, ok := obj.(*metav1.Status); ok {
		// In Kubernetes it says its code when something was posted, but not when
		// something was deleted.
		if status.Code == 0 && c.info.Verb == "create" {
			status.Code = int32(code)
		}
		out := c.out
		out.as = schema.GroupVersionKind{}
		c.writeStatus(c.w, c.r, code, status, out)
		return nil
	}
	stored, ok := obj.(api.Object)
	sub := c.info.Served.Subresources[c.info.Subresource]
	form := codec.FormOf(c.info.Served)
	switch kind := c.out.as.Kind; {
	case !ok, kind == "" && sub != nil && sub.New != nil:
		c.writeValue(c.w, c.r, code, obj, c.info.Form().GroupVersionKind, c.out)
		return nil
	case kind == "":
		c.writeObject(c.w, c.r, code, stored, form, c.out)
		return nil
	case kind == "Table":
		return c.sendTable(code, store.Page{Objects: slices.Values([]api.Object{stored}), ResourceVersion: stored.GetResourceVersion()}, false)
	case kind == "PartialObjectMetadata":
		c.writeValue(c.w, c.r, code, metadataOf(stored), c.out.as, c.out)
		return nil
	}
	return c.notAList(c.out.as.Kind)
}

func (c *call) notAList(kind string) error {
	return statusError(http.StatusNotAcceptable, metav1.StatusReasonNotAcceptable,
		fmt.Sprintf("you requested %s, but the requested object is not a list type (%s)", kind, c.info.Served.Kind))
}

func (c *call) sendList(list store.Page) error {
	form := codec.FormOf(c.info.Served)
	whole := &codec.List{
		Kind: form.ListKind(), Form: form, Items: list.Objects, Err: list.Err,
		Meta: metav1.ListMeta{ResourceVersion: list.ResourceVersion, Continue: list.Continue, RemainingItemCount: list.Remaining},
	}
	switch c.out.as.Kind {
	case "Table":
		return c.sendTable(http.StatusOK, list, true)
	case "PartialObjectMetadata":
		return statusError(http.StatusNotAcceptable, metav1.StatusReasonNotAcceptable,
			fmt.Sprintf("you requested PartialObjectMetadata, but the requested object is a list (%s)", form.ListKind().Kind))
	case "PartialObjectMetadataList":
		whole.Kind, whole.Form, whole.Kinds = c.out.as, metadataForm, true
	}
	c.writeList(c.w, c.r, whole, c.out)
	return nil
}

// metadataForm is an object reduced to its metadata, in the version that is in
// lists whichever was asked for.
var metadataForm = codec.Form{
	GroupVersionKind: metav1.SchemeGroupVersion.WithKind("PartialObjectMetadata"),
	FromHub:          func(obj api.Object) (api.Object, error) { return metadataOf(obj), nil },
}
