// Package kservewebhook holds what deploy/kubernetes writes to KServe against KServe's own types and admission webhook, and what the
// local server of its tests takes for KServe's behaviour against KServe's own code. It is a Go module of its own: the libraries of
// Kubernetes are in no program of Waybill's.
package kservewebhook

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kserve/kserve/pkg/apis/serving/v1beta1"
	"github.com/kserve/kserve/pkg/controller/v1beta1/inferenceservice/reconcilers/knative"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/pkg/apis"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

// read gives an InferenceService as the API server would take it: a member that the type does not have would be dropped there.
func read(t *testing.T, raw []byte) *v1beta1.InferenceService {
	t.Helper()
	s := &v1beta1.InferenceService{}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(s); err != nil {
		t.Fatalf("%v\n%s", err, raw)
	}
	return s
}

// admit is what becomes of a write: the defaults of the predictor, the webhook, and the Knative Service that the controller makes, in
// front of Knative's webhook.
func admit(s, was *v1beta1.InferenceService, status v1beta1.ComponentStatusSpec) error {
	s.Spec.Predictor.GetImplementation().Default(&v1beta1.InferenceServicesConfig{})
	v := &v1beta1.InferenceServiceValidator{}
	var err error
	if was == nil {
		_, err = v.ValidateCreate(context.Background(), s)
	} else {
		_, err = v.ValidateUpdate(context.Background(), was, s)
	}
	if err != nil {
		return err
	}
	p := s.Spec.Predictor
	container := p.GetImplementation().GetContainer(s.ObjectMeta, p.GetExtensions(), nil)
	pod := corev1.PodSpec(p.PodSpec)
	pod.Containers = []corev1.Container{*container}
	notes := maps.Clone(s.Annotations)
	maps.Copy(notes, p.Annotations)
	meta := metav1.ObjectMeta{Name: s.Name + "-predictor", Namespace: s.Namespace, Annotations: notes, Labels: map[string]string{}}
	service := knative.NewKsvcReconciler(nil, nil, meta, p.GetExtensions(), &pod, status, nil).Service
	ctx := apis.WithinParent(apis.WithinCreate(context.Background()), service.ObjectMeta)
	service.SetDefaults(ctx)
	if err := service.Validate(ctx); err != nil {
		return err
	}
	return nil
}

func bodies(t *testing.T) [][]byte {
	t.Helper()
	files, err := filepath.Glob("../testdata/kserve/[0-9m]*.json")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	var out [][]byte
	for _, f := range files { // sorted, in the order in which they are written; manifest.json is the last
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, raw)
	}
	return out
}

func TestWebhookTakesWhatIsWritten(t *testing.T) {
	var was *v1beta1.InferenceService
	for i, raw := range bodies(t) {
		s := read(t, raw)
		if err := admit(s, was, v1beta1.ComponentStatusSpec{LatestRolledoutRevision: "churn-predictor-00001"}); err != nil {
			t.Errorf("write %d: %v", i+1, err)
		}
		was = s
	}
}

// The checks bite: without them nothing would be proven.
func TestWebhookRefuses(t *testing.T) {
	for name, edit := range map[string]func(s *v1beta1.InferenceService){
		"\"Churn\"": func(s *v1beta1.InferenceService) { s.Name = "Churn" },
		"0 <= -5":   func(s *v1beta1.InferenceService) { n := int64(-5); s.Spec.Predictor.CanaryTrafficPercent = &n },
		"reserved": func(s *v1beta1.InferenceService) {
			s.Spec.Predictor.Containers[0].Env = []corev1.EnvVar{{Name: "PORT", Value: "1"}}
		},
		"MaxReplicas": func(s *v1beta1.InferenceService) { n := int32(9); s.Spec.Predictor.MinReplicas = &n },
	} {
		s := read(t, bodies(t)[0])
		edit(s)
		err := admit(s, nil, v1beta1.ComponentStatusSpec{LatestRolledoutRevision: "churn-predictor-00001"})
		if err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(name)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type route struct {
	Revision string `json:"revisionName"`
	Latest   bool   `json:"latestRevision"`
	Percent  int64  `json:"percent"`
	Tag      string `json:"tag"`
}

func routes(list []servingv1.TrafficTarget) (out []route) {
	for _, x := range list {
		out = append(out, route{x.RevisionName, *x.LatestRevision, *x.Percent, x.Tag})
	}
	return out
}

type rolled struct {
	Latest   string `json:"latestRolledoutRevision"`
	Previous string `json:"previousRolledoutRevision"`
}

// How KServe splits traffic, and what it takes for rolled out: the tables of the local server.
func TestRounds(t *testing.T) {
	raw, err := os.ReadFile("../testdata/kserve/rounds.json")
	if err != nil {
		t.Fatal(err)
	}
	var rounds []struct {
		Percent        *int64
		Rolled, After  rolled
		Split, Given   []route
		Created, Ready string
	}
	if err := json.Unmarshal(raw, &rounds); err != nil || len(rounds) < 40 {
		t.Fatal(len(rounds), err)
	}
	taken := 0
	for i, r := range rounds {
		was := v1beta1.ComponentStatusSpec{LatestRolledoutRevision: r.Rolled.Latest, PreviousRolledoutRevision: r.Rolled.Previous}
		ext := &v1beta1.ComponentExtensionSpec{CanaryTrafficPercent: r.Percent}
		meta := metav1.ObjectMeta{Name: "churn-predictor", Annotations: map[string]string{}}
		got := routes(knative.NewKsvcReconciler(nil, nil, meta, ext, &corev1.PodSpec{}, was, nil).Service.Spec.Traffic)
		if a, b := toJSON(got), toJSON(r.Split); a != b {
			t.Errorf("round %d: KServe splits into %s, the local server into %s", i, a, b)
		}
		status := &servingv1.ServiceStatus{}
		status.LatestCreatedRevisionName, status.LatestReadyRevisionName = r.Created, r.Ready
		for _, x := range r.Given {
			status.Traffic = append(status.Traffic, servingv1.TrafficTarget{RevisionName: x.Revision, LatestRevision: &x.Latest, Percent: &x.Percent, Tag: x.Tag})
		}
		is := &v1beta1.InferenceServiceStatus{Components: map[v1beta1.ComponentType]v1beta1.ComponentStatusSpec{v1beta1.PredictorComponent: was}}
		is.PropagateStatus(v1beta1.PredictorComponent, status)
		c := is.Components[v1beta1.PredictorComponent]
		if now := (rolled{c.LatestRolledoutRevision, c.PreviousRolledoutRevision}); now != r.After {
			t.Errorf("round %d: KServe takes %+v for rolled out, the local server %+v", i, now, r.After)
		}
		if r.After != r.Rolled {
			taken++
		}
	}
	if taken < 5 {
		t.Errorf("only %d rounds change anything", taken)
	}
}

func toJSON(v any) string {
	raw, _ := json.Marshal(v)
	return string(raw)
}
