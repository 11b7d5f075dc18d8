package sagemaker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/sagemaker"
	"github.com/aws/aws-sdk-go-v2/service/sagemaker/types"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/sagemaker"
	"github.com/waybill-ml/waybill/deploy/sagemaker/sagemakertest"
)

func apply(t *testing.T, tg deploy.Target, r deploy.Release) (*deploy.Outcome, error) {
	t.Helper()
	r.Wait = time.Minute
	p, err := tg.Plan(t.Context(), r)
	if err != nil {
		return nil, err
	}
	return tg.Apply(t.Context(), p)
}

func deployed(t *testing.T, s *site, ns ...int) {
	t.Helper()
	for _, n := range ns {
		if _, err := apply(t, s.target(), release(n)); err != nil {
			t.Fatalf("release %d: %v", n, err)
		}
	}
}

func serves(t *testing.T, s *site, n int) {
	t.Helper()
	s.Rest()
	if got := s.Shares("churn"); len(got) != 1 || got[string(digest("image", n))] != 100 {
		t.Errorf("%v serves, want release %d", got, n)
	}
}

func (s *site) client() *sdk.Client {
	return sdk.NewFromConfig(s.config(), func(o *sdk.Options) { o.BaseEndpoint, o.RetryMaxAttempts = &s.url, 1 })
}

// before runs f once before the server sees the first request of an operation.
func before(op string, f func(s *site)) (func(http.Handler) http.Handler, func(*site)) {
	var s *site
	done := false
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !done && s != nil && r.Header.Get("X-Amz-Target") == "SageMaker."+op {
				done = true
				f(s)
			}
			h.ServeHTTP(w, r)
		})
	}, func(x *site) { s = x }
}

// Over a real connection; and with credentials that are wrong in every way, which the server finds by computing the signature anew.
func TestSignatures(t *testing.T) {
	s := newSite(t, model(t), false, nil)
	srv := httptest.NewServer(s.Server)
	t.Cleanup(srv.Close)
	s.url = srv.URL
	target := func(cfg aws.Config) deploy.Target {
		tg, err := sagemaker.New(cfg, s.settings())
		if err != nil {
			t.Fatal(err)
		}
		return tg
	}
	good := s.config()
	good.HTTPClient = nil
	if _, err := apply(t, target(good), release(1)); err != nil {
		t.Fatal(err)
	}
	serves(t, s, 1)
	c := s.Creds
	for name, cfg := range map[string]aws.Config{
		"another secret": {Region: c.Region, Credentials: credentials.NewStaticCredentialsProvider(c.ID, c.Secret+"x", c.Token)},
		"another token":  {Region: c.Region, Credentials: credentials.NewStaticCredentialsProvider(c.ID, c.Secret, "other-token")},
		"another id":     {Region: c.Region, Credentials: credentials.NewStaticCredentialsProvider("AKIDOTHER", c.Secret, c.Token)},
		"another region": {Region: "us-east-1", Credentials: good.Credentials},
		"none":           {Region: c.Region},
		"anonymous":      {Region: c.Region, Credentials: aws.AnonymousCredentials{}},
		"no source": {Region: c.Region, Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{}, errors.New("the session has ended")
		})},
		"an altered body": {Region: c.Region, Credentials: good.Credentials, HTTPClient: altered{}},
	} {
		if _, err := apply(t, target(cfg), release(2)); !errors.Is(err, deploy.ErrUnauthorized) {
			t.Errorf("%s: %v", name, err)
		}
	}
	serves(t, s, 1)
}

// altered makes each request one about another endpoint after it was signed.
type altered struct{}

func (altered) Do(r *http.Request) (*http.Response, error) {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	raw = bytes.Replace(raw, []byte(`"churn`), []byte(`"other`), 1)
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(raw)), int64(len(raw))
	return http.DefaultClient.Do(r)
}

// The server refuses what SageMaker refuses: else the suite would prove nothing.
func TestServerValidates(t *testing.T) {
	m := model(t)
	for body, ok := range map[string]bool{
		`{"ModelName":"m","PrimaryContainer":{"Image":"x"},"ExecutionRoleArn":"` + role + `"}`: true,
		`{"ModelName":"m","PrimaryContainer":{"Image":"x","Env":{}}}`:                          false,
		`{"ModelName":"m","primaryContainer":{}}`:                                              false,
		`{"ModelName":"m","Tags":[{"Key":"a","Value":"b"}],"PrimaryContainer":{},"Memory":1}`:  false,
		`[]`: false,
	} {
		if err := m.Check("CreateModel", []byte(body), nil); (err == nil) != ok {
			t.Errorf("%s: %v", body, err)
		}
	}
	if !m.Full() {
		t.Skip("WAYBILL_SCHEMAS is not set: lengths, patterns, ranges and enums are not checked")
	}
	variant := func(v string) string {
		return `{"EndpointConfigName":"c","ProductionVariants":[` + v + `]}`
	}
	for op, bodies := range map[string][]string{
		"CreateModel": {`{"PrimaryContainer":{"Image":"x"},"ModelName":"a_b"}`, `{"ModelName":"m","ExecutionRoleArn":"me"}`, `{"ModelName":"m","PrimaryContainer":{"Image":"a b"}}`,
			`{"ModelName":"m","Tags":[{"Key":"a"}]}`, `{"ModelName":"m","Tags":[{"Key":"a","Value":"#"}]}`, `{"ModelName":"` + strings.Repeat("m", 64) + `"}`},
		"CreateEndpointConfig": {`{"EndpointConfigName":"c"}`, variant(``), variant(`{"ModelName":"m"}`), variant(`{"VariantName":"v","ModelName":"m","InitialInstanceCount":0}`),
			variant(`{"VariantName":"v","ModelName":"m","InstanceType":"ml.huge"}`), variant(`{"VariantName":"v","ModelName":"m","ServerlessConfig":{"MemorySizeInMB":512,"MaxConcurrency":1}}`),
			variant(`{"VariantName":"v","ModelName":"m","InitialVariantWeight":-1}`), variant(`{"VariantName":"v","ModelName":"m","InitialVariantWeight":"1"}`)},
		"UpdateEndpoint": {`{"EndpointName":"e"}`, `{"EndpointName":"e","EndpointConfigName":"c","DeploymentConfig":{"BlueGreenUpdatePolicy":{}}}`,
			`{"EndpointName":"e","EndpointConfigName":"c","DeploymentConfig":{"AutoRollbackConfiguration":{"Alarms":[]}}}`},
	} {
		for _, body := range bodies {
			if err := m.Check(op, []byte(body), nil); err == nil {
				t.Errorf("%s %s is taken", op, body)
			}
		}
	}
}

// The server's own state machine, asked by the SDK.
func TestServerStates(t *testing.T) {
	s := newSite(t, model(t), false, nil)
	deployed(t, s, 1, 2)
	c := s.client()
	refused := func(what, text string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", what, err)
		}
	}
	configs := s.Configs()
	if len(configs) != 2 {
		t.Fatalf("%q", configs)
	}
	e := aws.String("churn")
	if _, err := c.UpdateEndpoint(t.Context(), &sdk.UpdateEndpointInput{EndpointName: e, EndpointConfigName: &configs[0]}); err != nil {
		t.Fatal(err)
	}
	_, err := c.UpdateEndpoint(t.Context(), &sdk.UpdateEndpointInput{EndpointName: e, EndpointConfigName: &configs[1]})
	refused("an update during an update", "in-progress", err)
	_, err = c.DeleteEndpoint(t.Context(), &sdk.DeleteEndpointInput{EndpointName: e})
	refused("a deletion during an update", "in-progress", err)
	out, err := c.DescribeEndpoint(t.Context(), &sdk.DescribeEndpointInput{EndpointName: e})
	if err != nil || out.EndpointStatus != types.EndpointStatusUpdating || *out.EndpointConfigName != configs[1] || *out.PendingDeploymentSummary.EndpointConfigName != configs[0] {
		t.Errorf("%+v, %v", out, err)
	}
	serves(t, s, 1)
	_, err = c.CreateEndpoint(t.Context(), &sdk.CreateEndpointInput{EndpointName: e, EndpointConfigName: &configs[0]})
	refused("another of this name", "already existing endpoint", err)
	_, err = c.UpdateEndpoint(t.Context(), &sdk.UpdateEndpointInput{EndpointName: e, EndpointConfigName: aws.String("none")})
	refused("a configuration that is not there", "Could not find endpoint configuration", err)
	v := types.ProductionVariant{VariantName: aws.String("x"), ModelName: aws.String("none"), InstanceType: "ml.c5.large", InitialInstanceCount: aws.Int32(1)}
	_, err = c.CreateEndpointConfig(t.Context(), &sdk.CreateEndpointConfigInput{EndpointConfigName: aws.String("x"), ProductionVariants: []types.ProductionVariant{v}})
	refused("a model that is not there", "Could not find model", err)
	_, err = c.CreateEndpointConfig(t.Context(), &sdk.CreateEndpointConfigInput{EndpointConfigName: &configs[0], ProductionVariants: []types.ProductionVariant{v}})
	refused("another configuration of this name", "already existing", err)
	_, err = c.UpdateEndpointWeightsAndCapacities(t.Context(), &sdk.UpdateEndpointWeightsAndCapacitiesInput{EndpointName: e, DesiredWeightsAndCapacities: []types.DesiredWeightAndCapacity{{VariantName: aws.String("x")}}})
	refused("weights of a variant that is not there", "Could not find variant", err)
	s.Fate(string(digest("image", 2)), sagemakertest.Fate{Fail: noPing})
	if _, err := c.UpdateEndpoint(t.Context(), &sdk.UpdateEndpointInput{EndpointName: e, EndpointConfigName: &configs[1]}); err != nil {
		t.Fatal(err)
	}
	serves(t, s, 1)
	if out, err = c.DescribeEndpoint(t.Context(), &sdk.DescribeEndpointInput{EndpointName: e}); err != nil || out.EndpointStatus != types.EndpointStatusInService || aws.ToString(out.FailureReason) != noPing {
		t.Errorf("%+v, %v", out, err)
	}
}

// Two deploys from the same state, one of which sleeps before its last call until the other is done: it is told, and the other's release
// serves. With configurations named after their content it would overwrite the other's without noticing.
func TestNamesAreWhatTellsOfConflicts(t *testing.T) {
	for _, numbered := range []bool{true, false} {
		naming := func(tg deploy.Target, n int) deploy.Target {
			if !numbered {
				sagemaker.SetNaming(tg, func(string) string { return fmt.Sprintf("churn-of-release-%d", n) })
			}
			return tg
		}
		var other error
		wrap, arm := before("UpdateEndpoint", func(s *site) { _, other = apply(t, naming(s.target(), 3), release(3)) })
		s := newSite(t, model(t), false, wrap)
		deployed(t, s, 1)
		arm(s)
		_, err := apply(t, naming(s.target(), 2), release(2))
		if other != nil {
			t.Fatal(other)
		}
		if numbered {
			if !errors.Is(err, deploy.ErrConflict) {
				t.Errorf("the slower one says %v", err)
			}
			serves(t, s, 3)
			continue
		}
		if err != nil {
			t.Errorf("without the numbers: %v", err)
		}
		serves(t, s, 2) // so it is the numbers that keep it away
	}
}

// Who is overtaken before its configuration is made leaves the other's alone.
func TestOvertaken(t *testing.T) {
	wrap, arm := before("CreateEndpointConfig", func(s *site) { deployed(t, s, 3) })
	s := newSite(t, model(t), false, wrap)
	deployed(t, s, 1)
	arm(s)
	if _, err := apply(t, s.target(), release(2)); !errors.Is(err, deploy.ErrConflict) {
		t.Errorf("%v", err)
	}
	serves(t, s, 3)
	if st, err := s.target().Status(t.Context()); err != nil || st.Running() != release(3).Digest {
		t.Errorf("%+v, %v", st, err)
	}
}

// The previous release is the one before, however often the weights and capacities of this one were set right.
func TestPrevious(t *testing.T) {
	s := newSite(t, model(t), false, nil)
	deployed(t, s, 1, 2)
	s.Edit("churn", func(e *sagemakertest.Endpoint) { e.Live[0].Count = 9 })
	deployed(t, s, 2)
	canary := release(3)
	canary.Weight = 5
	if _, err := apply(t, s.target(), canary); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{2, 1, 2} { // the canary's end; the release before; and forth
		if o, err := s.target().Rollback(t.Context(), "", time.Minute); err != nil || o.Digest != release(want).Digest {
			t.Errorf("%+v, %v", o, err)
		}
		serves(t, s, want)
	}
}

// What a run that died left behind makes room for another release, and is taken up by the same one.
func TestLeftBehind(t *testing.T) {
	for _, n := range []int{2, 3} {
		ctx, cancel := context.WithCancel(t.Context())
		wrap, arm := before("UpdateEndpoint", func(*site) { cancel(); panic(http.ErrAbortHandler) })
		s := newSite(t, model(t), false, wrap)
		deployed(t, s, 1)
		arm(s)
		tg := s.target()
		p, err := tg.Plan(ctx, release(2))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tg.Apply(ctx, p); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if got := s.Configs(); len(got) != 2 {
			t.Fatalf("%q", got)
		}
		st, err := s.target().Status(t.Context())
		if err != nil || len(st.Kept) != 0 {
			t.Errorf("what never served is kept to roll back to: %+v, %v", st, err)
		}
		deployed(t, s, n)
		serves(t, s, n)
		if got := s.Configs(); len(got) != 2 {
			t.Errorf("%q", got)
		}
		if o, err := s.target().Rollback(t.Context(), "", time.Minute); err != nil || o.Digest != release(1).Digest {
			t.Errorf("%+v, %v", o, err)
		}
		serves(t, s, 1)
	}
}

// A configuration that looks left behind, and that the endpoint begins to move to while it is examined, is not deleted, or noticed.
func TestLeftBehindOnlySeemingly(t *testing.T) {
	wrap, arm := before("DeleteEndpointConfig", func(s *site) {
		name := s.Configs()[1]
		if _, err := s.client().UpdateEndpoint(t.Context(), &sdk.UpdateEndpointInput{EndpointName: aws.String("churn"), EndpointConfigName: &name}); err != nil {
			t.Error(err)
		}
	})
	s := newSite(t, model(t), false, wrap)
	deployed(t, s, 1, 2)
	back := s.Configs()[0] // by hand, so that the number after it is there with something else
	if _, err := s.client().UpdateEndpoint(t.Context(), &sdk.UpdateEndpointInput{EndpointName: aws.String("churn"), EndpointConfigName: &back}); err != nil {
		t.Fatal(err)
	}
	s.Rest()
	arm(s)
	if _, err := apply(t, s.target(), release(3)); !errors.Is(err, deploy.ErrConflict) {
		t.Errorf("%v", err)
	}
	serves(t, s, 2)
	st, err := s.target().Status(t.Context()) // its configuration is deleted: the image is known, the artifact is not
	if err != nil || len(st.Shares) != 1 || st.Shares[0].Digest != "" || !strings.HasSuffix(st.Shares[0].Image, string(digest("image", 2))) {
		t.Errorf("%+v, %v", st, err)
	}
	deployed(t, s, 3)
	serves(t, s, 3)
}

// A model that has the name of a release and runs something else is not taken for it.
func TestForgedModel(t *testing.T) {
	s := newSite(t, model(t), false, nil)
	deployed(t, s, 1)
	name := sagemaker.ModelName(s.target(), release(2))
	forge := func() {
		if _, err := s.client().CreateModel(t.Context(), &sdk.CreateModelInput{
			ModelName: &name, ExecutionRoleArn: aws.String(role),
			PrimaryContainer: &types.ContainerDefinition{Image: aws.String(release(4).Image), Environment: map[string]string{"WAYBILL_LOG": "json", sagemaker.DigestVariable: string(release(2).Digest)}},
		}); err != nil {
			t.Fatal(err)
		}
	}
	forge()
	if _, err := apply(t, s.target(), release(2)); !errors.Is(err, deploy.ErrConflict) || !strings.Contains(err.Error(), name) {
		t.Errorf("%v", err)
	}
	serves(t, s, 1)
	// One that is exchanged before the endpoint moves to it.
	wrap, arm := before("UpdateEndpoint", func(x *site) {
		s = x
		x.Models(func(m map[string]*sagemakertest.Model) { delete(m, name) })
		forge()
	})
	s = newSite(t, model(t), false, wrap)
	deployed(t, s, 1)
	arm(s)
	if _, err := apply(t, s.target(), release(2)); !errors.Is(err, deploy.ErrConflict) || !strings.Contains(err.Error(), "exchanged") {
		t.Errorf("%v", err)
	}
	// And one that was exchanged while its release serves.
	s = newSite(t, model(t), false, nil)
	deployed(t, s, 2)
	s.Models(func(m map[string]*sagemakertest.Model) { delete(m, name) })
	forge()
	st, err := s.target().Status(t.Context())
	if err != nil || len(st.Shares) != 1 || st.Shares[0].Digest != "" {
		t.Errorf("%+v, %v", st, err)
	}
}

// The platform's own maintenance is waited for, before a move and when it comes just before the call.
func TestMaintenance(t *testing.T) {
	wrap, arm := before("UpdateEndpoint", func(s *site) { s.Maintain("churn") })
	s := newSite(t, model(t), false, wrap)
	deployed(t, s, 1)
	s.Maintain("churn")
	st, err := s.target().Status(t.Context())
	if err != nil || st.Settled || !st.Healthy || st.State != "SystemUpdating" {
		t.Errorf("%+v, %v", st, err)
	}
	s.Maintain("churn")
	deployed(t, s, 2)
	serves(t, s, 2)
	arm(s)
	deployed(t, s, 3)
	serves(t, s, 3)
	s.Maintain("churn")
	if _, err := s.target().Rollback(t.Context(), "", time.Minute); err != nil {
		t.Error(err)
	}
	serves(t, s, 2)
}

// An endpoint that never served is deleted and created anew; one that served and failed is left alone.
func TestFailed(t *testing.T) {
	s := newSite(t, model(t), false, nil)
	s.sick(release(1).Digest, deploy.ErrUnhealthy)
	if _, err := apply(t, s.target(), release(1)); !errors.Is(err, deploy.ErrUnhealthy) || !strings.Contains(err.Error(), noPing) {
		t.Errorf("%v", err)
	}
	st, err := s.target().Status(t.Context())
	if err != nil || !st.Exists || st.Healthy || st.State != "Failed" || st.Reason != noPing || len(st.Shares) != 0 {
		t.Errorf("%+v, %v", st, err)
	}
	if _, err := s.target().Rollback(t.Context(), "", time.Minute); !errors.Is(err, deploy.ErrNotFound) {
		t.Errorf("%v", err)
	}
	p, err := s.target().Plan(t.Context(), release(2))
	if err != nil || len(p.Changes) == 0 || !strings.Contains(p.Changes[0].Why, "created anew") || p.From != "" {
		t.Errorf("%+v, %v", p, err)
	}
	deployed(t, s, 2)
	serves(t, s, 2)
	s.Edit("churn", func(e *sagemakertest.Endpoint) { e.Status, e.Reason = "Failed", "disk" })
	if _, err := apply(t, s.target(), release(3)); !errors.Is(err, deploy.ErrUnhealthy) || !strings.Contains(err.Error(), "aws sagemaker delete-endpoint --endpoint-name churn") {
		t.Errorf("%v", err)
	}
	serves(t, s, 2)
}
