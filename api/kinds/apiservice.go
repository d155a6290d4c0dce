package kinds

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
)

// IndexBackend is the index of APIServices by the service that answers for them,
// NAMESPACE/NAME. Local ones are not in it.
const IndexBackend = "backend"

// apiService is the row of APIServices: which server answers for a group-version.
func apiService() *api.Resource {
	gv := apiregistrationv1.SchemeGroupVersion
	return stored[apiregistrationv1.APIService, *apiregistrationv1.APIService, apiregistrationv1.APIServiceList](gv, &api.Resource{
		Plural:     "apiservices",
		Singular:   "apiservice",
		Kind:       "APIService",
		Categories: []string{"api-extensions"},
		Prefix:     "apiregistration.k8s.io/apiservices",
		ChecksBase: true,
		NameRule:   func(name string, _ bool) []string { return content.IsPathSegmentName(name) },
		Default: on(func(s *apiregistrationv1.APIService) {
			if b := s.Spec.Service; b != nil && b.Port == nil {
				b.Port = ptr.To[int32](443)
			}
		}),
		PrepareCreate: on(func(s *apiregistrationv1.APIService) {
			s.Status = apiregistrationv1.APIServiceStatus{}
			if s.Spec.Service == nil {
				SetAPIServiceCondition(s, LocallyAvailable(s.CreationTimestamp))
			}
		}),
		PrepareUpdate:  onUpdate(func(s, old *apiregistrationv1.APIService) { s.Status = *old.Status.DeepCopy() }),
		Validate:       validates(validateAPIService),
		ValidateUpdate: validatesUpdate(func(s, _ *apiregistrationv1.APIService) field.ErrorList { return validateAPIService(s) }),
		ResetFields:    resets(gv, "status"),
		Indexes: []api.Index{{Name: IndexBackend, Values: func(obj api.Object) []string {
			b := obj.(*apiregistrationv1.APIService).Spec.Service
			if b == nil {
				return nil
			}
			return []string{b.Namespace + "/" + b.Name}
		}}},
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("Service", "string", "The reference to the service that hosts this API endpoint."),
				column("Available", "string", "Whether this service is available."),
				column("Age", "string", objectMeta["creationTimestamp"]),
			},
			Row: cells(apiServiceCells),
		},
		Subresources: map[string]*api.Subresource{
			"status": {
				Verbs: updateVerbs,
				PrepareUpdate: onUpdate(func(s, old *apiregistrationv1.APIService) {
					s.Spec = *old.Spec.DeepCopy()
					s.Labels, s.Annotations = old.Labels, old.Annotations
					s.Finalizers, s.OwnerReferences = old.Finalizers, old.OwnerReferences
				}),
				ValidateUpdate: validatesUpdate(func(s, _ *apiregistrationv1.APIService) field.ErrorList { return validateAPIServiceStatus(s) }),
				ResetFields:    resets(gv, "spec", "metadata"),
			},
		},
	})
}

func apiServiceCells(s *apiregistrationv1.APIService, now time.Time) []any {
	backend, available := "Local", string(apiregistrationv1.ConditionUnknown)
	if b := s.Spec.Service; b != nil {
		backend = b.Namespace + "/" + b.Name
	}
	if c := APIServiceCondition(s, apiregistrationv1.Available); c != nil {
		available = string(c.Status)
		if c.Status != apiregistrationv1.ConditionTrue && c.Reason != "" {
			available += " (" + c.Reason + ")"
		}
	}
	return []any{s.Name, backend, available, age(s.CreationTimestamp, now)}
}

func validateAPIService(s *apiregistrationv1.APIService) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec")
	if name := APIServiceName(schema.GroupVersion{Group: s.Spec.Group, Version: s.Spec.Version}); s.Name != name && len(content.IsPathSegmentName(s.Name)) == 0 {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), s.Name, fmt.Sprintf("must be `spec.version+\".\"+spec.group`: %q", name)))
	}
	if s.Spec.Group == "" && s.Spec.Version != "v1" {
		errs = append(errs, field.Required(path.Child("group"), "only v1 may have an empty group and it better be legacy kube"))
	}
	if s.Spec.Group != "" {
		for _, text := range validation.IsDNS1123Subdomain(s.Spec.Group) {
			errs = append(errs, field.Invalid(path.Child("group"), s.Spec.Group, text))
		}
	}
	for _, text := range validation.IsDNS1035Label(s.Spec.Version) {
		errs = append(errs, field.Invalid(path.Child("version"), s.Spec.Version, text))
	}
	if p := s.Spec.GroupPriorityMinimum; p <= 0 || p > 20000 {
		errs = append(errs, field.Invalid(path.Child("groupPriorityMinimum"), p, "must be positive and less than 20000"))
	}
	if p := s.Spec.VersionPriority; p <= 0 || p > 1000 {
		errs = append(errs, field.Invalid(path.Child("versionPriority"), p, "must be positive and less than 1000"))
	}
	return append(errs, validateBackend(&s.Spec, path)...)
}

// validateBackend checks by whom a group-version is answered for, and how that
// server is believed.
func validateBackend(s *apiregistrationv1.APIServiceSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	bundle, skip := path.Child("caBundle"), path.Child("insecureSkipTLSVerify")
	if s.Service == nil {
		if len(s.CABundle) > 0 {
			errs = append(errs, field.Invalid(bundle, fmt.Sprintf("%d bytes", len(s.CABundle)), "local APIServices may not have a caBundle"))
		}
		if s.InsecureSkipTLSVerify {
			errs = append(errs, field.Invalid(skip, true, "local APIServices may not have insecureSkipTLSVerify"))
		}
		return errs
	}
	service := path.Child("service")
	if s.Service.Namespace == "" {
		errs = append(errs, field.Required(service.Child("namespace"), ""))
	}
	if s.Service.Name == "" {
		errs = append(errs, field.Required(service.Child("name"), ""))
	}
	if port := ptr.Deref(s.Service.Port, 0); len(validation.IsValidPortNum(int(port))) > 0 {
		errs = append(errs, field.Invalid(service.Child("port"), port, "port is not valid: "+strings.Join(validation.IsValidPortNum(int(port)), ", ")))
	}
	if s.InsecureSkipTLSVerify && len(s.CABundle) > 0 {
		errs = append(errs, field.Invalid(skip, true, "may not be true if caBundle is present"))
	}
	return errs
}

func validateAPIServiceStatus(s *apiregistrationv1.APIService) field.ErrorList {
	var errs field.ErrorList
	known := []apiregistrationv1.ConditionStatus{apiregistrationv1.ConditionTrue, apiregistrationv1.ConditionFalse, apiregistrationv1.ConditionUnknown}
	for i, c := range s.Status.Conditions {
		if c.Status != known[0] && c.Status != known[1] && c.Status != known[2] {
			errs = append(errs, field.NotSupported(field.NewPath("status", "conditions").Index(i).Child("status"), c.Status, known))
		}
	}
	return errs
}

// APIServiceName is that of the APIService of a group-version.
func APIServiceName(gv schema.GroupVersion) string { return gv.Version + "." + gv.Group }

// LocallyAvailable is the condition of an APIService that this server answers for
// itself.
func LocallyAvailable(since metav1.Time) apiregistrationv1.APIServiceCondition {
	return apiregistrationv1.APIServiceCondition{
		Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionTrue, LastTransitionTime: since,
		Reason: "Local", Message: "Local APIServices are always available",
	}
}

// APIServiceCondition finds a condition, or nil.
func APIServiceCondition(s *apiregistrationv1.APIService, kind apiregistrationv1.APIServiceConditionType) *apiregistrationv1.APIServiceCondition {
	for i := range s.Status.Conditions {
		if s.Status.Conditions[i].Type == kind {
			return &s.Status.Conditions[i]
		}
	}
	return nil
}

// APIServiceAvailable says whether requests may be sent to the server of an
// APIService.
func APIServiceAvailable(s *apiregistrationv1.APIService) bool {
	c := APIServiceCondition(s, apiregistrationv1.Available)
	return c != nil && c.Status == apiregistrationv1.ConditionTrue
}

// SetAPIServiceCondition sets a condition of an APIService that the caller owns.
// Its time is when its status changed.
func SetAPIServiceCondition(s *apiregistrationv1.APIService, c apiregistrationv1.APIServiceCondition) {
	had := APIServiceCondition(s, c.Type)
	if had == nil {
		s.Status.Conditions = append(s.Status.Conditions, c)
		return
	}
	if had.Status == c.Status {
		c.LastTransitionTime = had.LastTransitionTime
	}
	*had = c
}

// Priority is where a group-version stands among those that have a kind of the
// same name: the group first, the version within its group. Higher comes first.
type Priority struct{ Group, Version int32 }

// DefinedPriority is that of all group-versions of custom resources.
var DefinedPriority = Priority{1000, 100}

// priorities are those that Kubernetes 1.37 gives to what it serves itself.
var priorities = map[schema.GroupVersion]Priority{
	{Group: "", Version: "v1"}:                                   {18000, 1},
	{Group: "apiregistration.k8s.io", Version: "v1"}:             {20001, 15}, // above all that can be written
	{Group: "apps", Version: "v1"}:                               {17800, 15},
	{Group: "events.k8s.io", Version: "v1"}:                      {17750, 15},
	{Group: "authentication.k8s.io", Version: "v1"}:              {17700, 15},
	{Group: "authorization.k8s.io", Version: "v1"}:               {17600, 15},
	{Group: "autoscaling", Version: "v1"}:                        {17500, 15},
	{Group: "autoscaling", Version: "v2"}:                        {17500, 30},
	{Group: "batch", Version: "v1"}:                              {17400, 15},
	{Group: "certificates.k8s.io", Version: "v1"}:                {17300, 15},
	{Group: "certificates.k8s.io", Version: "v1beta1"}:           {17300, 9},
	{Group: "certificates.k8s.io", Version: "v1alpha1"}:          {17300, 1},
	{Group: "networking.k8s.io", Version: "v1"}:                  {17200, 15},
	{Group: "networking.k8s.io", Version: "v1beta1"}:             {17200, 9},
	{Group: "policy", Version: "v1"}:                             {17100, 15},
	{Group: "rbac.authorization.k8s.io", Version: "v1"}:          {17000, 15},
	{Group: "storage.k8s.io", Version: "v1"}:                     {16800, 15},
	{Group: "storage.k8s.io", Version: "v1beta1"}:                {16800, 9},
	{Group: "storage.k8s.io", Version: "v1alpha1"}:               {16800, 1},
	{Group: "apiextensions.k8s.io", Version: "v1"}:               {16700, 15},
	{Group: "admissionregistration.k8s.io", Version: "v1"}:       {16700, 15},
	{Group: "admissionregistration.k8s.io", Version: "v1beta1"}:  {16700, 12},
	{Group: "admissionregistration.k8s.io", Version: "v1alpha1"}: {16700, 9},
	{Group: "scheduling.k8s.io", Version: "v1"}:                  {16600, 15},
	{Group: "scheduling.k8s.io", Version: "v1beta1"}:             {16600, 9},
	{Group: "scheduling.k8s.io", Version: "v1alpha3"}:            {16600, 3},
	{Group: "coordination.k8s.io", Version: "v1"}:                {16500, 15},
	{Group: "coordination.k8s.io", Version: "v1beta1"}:           {16500, 13},
	{Group: "coordination.k8s.io", Version: "v1alpha2"}:          {16500, 12},
	{Group: "node.k8s.io", Version: "v1"}:                        {16300, 15},
	{Group: "discovery.k8s.io", Version: "v1"}:                   {16200, 15},
	{Group: "resource.k8s.io", Version: "v1"}:                    {16200, 21},
	{Group: "resource.k8s.io", Version: "v1beta2"}:               {16200, 15},
	{Group: "resource.k8s.io", Version: "v1beta1"}:               {16200, 9},
	{Group: "resource.k8s.io", Version: "v1alpha3"}:              {16200, 1},
	{Group: "flowcontrol.apiserver.k8s.io", Version: "v1"}:       {16100, 21},
	{Group: "internal.apiserver.k8s.io", Version: "v1alpha1"}:    {16000, 9},
	{Group: "storagemigration.k8s.io", Version: "v1"}:            {15800, 15},
	{Group: "storagemigration.k8s.io", Version: "v1beta1"}:       {15800, 9},
	{Group: "metrics.k8s.io", Version: "v1beta1"}:                {100, 100}, // as the metrics server's
}

// PriorityOf is the priority of a group-version that this server answers for.
func PriorityOf(gv schema.GroupVersion) Priority {
	if p, ok := priorities[gv]; ok {
		return p
	}
	return DefinedPriority
}
