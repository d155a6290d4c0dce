package kinds

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api"
)

// eventTTL is how long Kubernetes keeps events by default.
const eventTTL = time.Hour

// event is stored as core's Event and served in events.k8s.io as well, where
// the same fields have other names and writes are checked strictly.
func event() *api.Resource {
	doc := corev1.Event{}.SwaggerDoc()
	row := stored[corev1.Event, *corev1.Event, corev1.EventList](corev1.SchemeGroupVersion, &api.Resource{
		Plural:     "events",
		Singular:   "event",
		Kind:       "Event",
		ShortNames: []string{"ev"},
		Namespaced: true,
		Prefix:     "events",
		TTL:        eventTTL,
		// Old clients name events as they like. Each version has all of its rules.
		LateMeta:                 true,
		AnyFinalizer:             true,
		AllowCreateOnUpdate:      true,
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				column("Last Seen", "string", doc["lastTimestamp"]),
				column("Type", "string", doc["type"]),
				column("Reason", "string", doc["reason"]),
				column("Object", "string", doc["involvedObject"]),
				wideColumn("Subobject", "string", corev1.ObjectReference{}.SwaggerDoc()["fieldPath"]),
				wideColumn("Source", "string", doc["source"]),
				column("Message", "string", doc["message"]),
				wideColumn("First Seen", "string", doc["firstTimestamp"]),
				wideColumn("Count", "string", doc["count"]),
				{Name: "Name", Type: "string", Format: "name", Priority: 1, Description: objectMeta["name"]},
			},
			Row: cells(eventCells),
		},
		FieldLabels: eventFieldLabels,
		Fields:      selects(eventFields),
	})
	row.Versions[0].Validate = validates(func(e *corev1.Event) field.ErrorList {
		return validateEvent(e, "reportingComponent")
	})
	row.Versions[0].ValidateUpdate = validatesUpdate(func(e, _ *corev1.Event) field.ErrorList {
		return validateEvent(e, "reportingComponent")
	})
	row.Versions = append(row.Versions, api.Version{
		GroupVersion:   eventsv1.SchemeGroupVersion,
		New:            func() api.Object { return &eventsv1.Event{} },
		NewList:        func() runtime.Object { return &eventsv1.EventList{} },
		ToHub:          eventToHub,
		FromHub:        eventFromHub,
		FieldLabels:    regardingFieldLabels,
		Validate:       validates(validateNewEvent),
		ValidateUpdate: validatesUpdate(validateChangedEvent),
	})
	return row
}

var eventFieldLabels = []string{
	"involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
	"involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath",
	"reason", "reportingComponent", "source", "type",
}

var regardingFieldLabels = map[string]string{
	"regarding.kind":            "involvedObject.kind",
	"regarding.namespace":       "involvedObject.namespace",
	"regarding.name":            "involvedObject.name",
	"regarding.uid":             "involvedObject.uid",
	"regarding.apiVersion":      "involvedObject.apiVersion",
	"regarding.resourceVersion": "involvedObject.resourceVersion",
	"regarding.fieldPath":       "involvedObject.fieldPath",
	"reason":                    "reason",
	"reportingController":       "reportingComponent",
	"type":                      "type",
}

func eventFields(e *corev1.Event) fields.Set {
	return fields.Set{
		"involvedObject.kind":            e.InvolvedObject.Kind,
		"involvedObject.namespace":       e.InvolvedObject.Namespace,
		"involvedObject.name":            e.InvolvedObject.Name,
		"involvedObject.uid":             string(e.InvolvedObject.UID),
		"involvedObject.apiVersion":      e.InvolvedObject.APIVersion,
		"involvedObject.resourceVersion": e.InvolvedObject.ResourceVersion,
		"involvedObject.fieldPath":       e.InvolvedObject.FieldPath,
		"reason":                         e.Reason,
		"reportingComponent":             e.ReportingController,
		"source":                         orDefault(e.Source.Component, e.ReportingController),
		"type":                           e.Type,
	}
}

// eventToHub shares nothing with its argument: it works on a copy.
func eventToHub(obj api.Object) (api.Object, error) {
	e := obj.DeepCopyObject().(*eventsv1.Event)
	hub := &corev1.Event{
		ObjectMeta:          e.ObjectMeta,
		InvolvedObject:      e.Regarding,
		Reason:              e.Reason,
		Message:             e.Note,
		Source:              e.DeprecatedSource,
		FirstTimestamp:      e.DeprecatedFirstTimestamp,
		LastTimestamp:       e.DeprecatedLastTimestamp,
		Count:               e.DeprecatedCount,
		Type:                e.Type,
		EventTime:           e.EventTime,
		Action:              e.Action,
		Related:             e.Related,
		ReportingController: e.ReportingController,
		ReportingInstance:   e.ReportingInstance,
	}
	if e.Series != nil {
		hub.Series = &corev1.EventSeries{Count: e.Series.Count, LastObservedTime: e.Series.LastObservedTime}
	}
	return hub, nil
}

func eventFromHub(obj api.Object) (api.Object, error) {
	hub := obj.DeepCopyObject().(*corev1.Event)
	e := &eventsv1.Event{
		ObjectMeta:               hub.ObjectMeta,
		EventTime:                hub.EventTime,
		ReportingController:      hub.ReportingController,
		ReportingInstance:        hub.ReportingInstance,
		Action:                   hub.Action,
		Reason:                   hub.Reason,
		Regarding:                hub.InvolvedObject,
		Related:                  hub.Related,
		Note:                     hub.Message,
		Type:                     hub.Type,
		DeprecatedSource:         hub.Source,
		DeprecatedFirstTimestamp: hub.FirstTimestamp,
		DeprecatedLastTimestamp:  hub.LastTimestamp,
		DeprecatedCount:          hub.Count,
	}
	if hub.Series != nil {
		e.Series = &eventsv1.EventSeries{Count: hub.Series.Count, LastObservedTime: hub.Series.LastObservedTime}
	}
	return e, nil
}

// validateEvent is what every event must satisfy. One with an eventTime comes
// from a client of the newer kind. reporter is what the client's version calls that
// field.
func validateEvent(e *corev1.Event, reporter string) field.ErrorList {
	var errs field.ErrorList
	regards := e.InvolvedObject.Namespace
	var agrees bool
	switch {
	case e.EventTime.IsZero() && regards == "":
		agrees = e.Namespace == "" || e.Namespace == metav1.NamespaceDefault
	case e.EventTime.IsZero():
		agrees = e.Namespace == regards
	default:
		agrees = regards != "" || e.Namespace == metav1.NamespaceDefault || e.Namespace == metav1.NamespaceSystem
	}
	if !agrees {
		errs = append(errs, field.Invalid(field.NewPath("involvedObject", "namespace"), regards, "does not match event.namespace"))
	}
	if !e.EventTime.IsZero() {
		if e.ReportingController == "" {
			errs = append(errs, field.Required(field.NewPath(reporter), ""))
		}
		errs = append(errs, isQualifiedName(e.ReportingController, field.NewPath(reporter))...)
		errs = append(errs, requiredText(e.ReportingInstance, 128, "reportingInstance")...)
		errs = append(errs, requiredText(e.Action, 128, "action")...)
		errs = append(errs, requiredText(e.Reason, 128, "reason")...)
		errs = append(errs, limitedText(e.Message, 1024, "message")...)
	}
	return errs
}

func requiredText(value string, limit int, name string) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(field.NewPath(name), "")}
	}
	return limitedText(value, limit, name)
}

func limitedText(value string, limit int, name string) field.ErrorList {
	if len(value) <= limit {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath(name), "", fmt.Sprintf("can have at most %v characters", limit))}
}

// validateNewEvent is the strict check of creation in events.k8s.io, where the
// fields of the old kind of event must stay empty.
func validateNewEvent(e *corev1.Event) field.ErrorList {
	errs := validateEvent(e, "reportingController")
	errs = append(errs, apivalidation.ValidateObjectMeta(&e.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))...)
	errs = append(errs, eventFinalizers(e)...)
	errs = append(errs, validateSeries(e.Series)...)
	if e.EventTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("eventTime"), ""))
	}
	if e.Type != corev1.EventTypeNormal && e.Type != corev1.EventTypeWarning {
		errs = append(errs, field.Invalid(field.NewPath("type"), "", fmt.Sprintf("has invalid value: %v", e.Type)))
	}
	for _, old := range []struct {
		name  string
		unset bool
	}{
		{"firstTimestamp", e.FirstTimestamp.IsZero()},
		{"lastTimestamp", e.LastTimestamp.IsZero()},
		{"count", e.Count == 0},
		{"source", e.Source == corev1.EventSource{}},
	} {
		if !old.unset {
			errs = append(errs, field.Invalid(field.NewPath(old.name), "", "needs to be unset"))
		}
	}
	return errs
}

// validateChangedEvent lets a writer in events.k8s.io change the series only.
func validateChangedEvent(e, old *corev1.Event) field.ErrorList {
	errs := append(validateEvent(e, "reportingController"), eventFinalizers(e)...)
	if !equality.Semantic.DeepEqual(e.Series, old.Series) {
		errs = append(errs, validateSeries(e.Series)...)
	}
	eventTime := e.EventTime
	if eventTime.Truncate(time.Microsecond).Equal(old.EventTime.Truncate(time.Microsecond)) {
		eventTime = old.EventTime // clients of microsecond precision may meet a stored time of more
	}
	for _, f := range []struct {
		name       string
		value, was any
	}{
		{"involvedObject", e.InvolvedObject, old.InvolvedObject},
		{"reason", e.Reason, old.Reason},
		{"message", e.Message, old.Message},
		{"source", e.Source, old.Source},
		{"firstTimestamp", e.FirstTimestamp, old.FirstTimestamp},
		{"lastTimestamp", e.LastTimestamp, old.LastTimestamp},
		{"count", e.Count, old.Count},
		{"type", e.Type, old.Type},
		{"eventTime", eventTime, old.EventTime},
		{"action", e.Action, old.Action},
		{"related", e.Related, old.Related},
		{"reportingController", e.ReportingController, old.ReportingController},
		{"reportingInstance", e.ReportingInstance, old.ReportingInstance},
	} {
		errs = append(errs, unchanged(f.value, f.was, field.NewPath(f.name))...)
	}
	return errs
}

// eventFinalizers is asked by events.k8s.io alone.
func eventFinalizers(e *corev1.Event) field.ErrorList {
	return api.ValidateFinalizerDomains(e.Finalizers, field.NewPath("metadata", "finalizers").Index)
}

func validateSeries(s *corev1.EventSeries) field.ErrorList {
	var errs field.ErrorList
	if s == nil {
		return nil
	}
	if s.Count < 2 {
		errs = append(errs, field.Invalid(field.NewPath("series.count"), "", "should be at least 2"))
	}
	if s.LastObservedTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("series.lastObservedTime"), ""))
	}
	return errs
}

func eventCells(e *corev1.Event, now time.Time) []any {
	first := age(e.FirstTimestamp, now)
	if e.FirstTimestamp.IsZero() {
		first = microAge(e.EventTime, now)
	}
	last := first
	if !e.LastTimestamp.IsZero() {
		last = age(e.LastTimestamp, now)
	}
	count := e.Count
	if e.Series != nil {
		last = microAge(e.Series.LastObservedTime, now)
		count = e.Series.Count
	} else if count == 0 {
		count = 1 // a new-style event without a series happened once
	}
	target := strings.ToLower(e.InvolvedObject.Kind)
	if e.InvolvedObject.Name != "" {
		target += "/" + e.InvolvedObject.Name
	}
	source := orDefault(e.Source.Component, e.ReportingController)
	if instance := orDefault(e.Source.Host, e.ReportingInstance); instance != "" {
		source += ", " + instance
	}
	return []any{last, e.Type, e.Reason, target, e.InvolvedObject.FieldPath, source,
		strings.TrimSpace(e.Message), first, int64(count), e.Name}
}

func microAge(t metav1.MicroTime, now time.Time) string {
	if t.IsZero() {
		return unknown
	}
	return duration.HumanDuration(now.Sub(t.Time))
}
