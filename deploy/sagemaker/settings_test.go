package sagemaker_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/sagemaker"
	"github.com/aws/aws-sdk-go-v2/service/sagemaker/types"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/sagemaker"
	"github.com/waybill-ml/waybill/deploy/sagemaker/sagemakertest"
)

// The number of instances that an autoscaler chose is no drift, and is kept; without the setting it is set right.
func TestAutoscaled(t *testing.T) {
	for _, scaled := range []bool{true, false} {
		s := newSite(t, model(t), false, nil)
		tg := s.target(func(x *sagemaker.Settings) { x.Autoscaled = scaled })
		if _, err := apply(t, tg, release(1)); err != nil {
			t.Fatal(err)
		}
		s.Edit("churn", func(e *sagemakertest.Endpoint) { e.Live[0].Count = 7 })
		p, err := tg.Plan(t.Context(), release(1))
		if err != nil || (len(p.Drift) == 0) != scaled || (len(p.Changes) == 0) != scaled {
			t.Errorf("%+v, %v", p, err)
		}
		if _, err := apply(t, tg, release(2)); err != nil {
			t.Fatal(err)
		}
		serves(t, s, 2)
		want := 2
		if scaled {
			want = 7
		}
		s.Edit("churn", func(e *sagemakertest.Endpoint) {
			if e.Live[0].Count != want {
				t.Errorf("%d instances, want %d", e.Live[0].Count, want)
			}
		})
	}
}

// How the traffic moves is told to SageMaker in updates that keep the variants' names, and in these alone.
func TestTraffic(t *testing.T) {
	s := newSite(t, model(t), false, nil)
	tg := s.target(func(x *sagemaker.Settings) {
		x.Traffic, x.Step, x.Interval, x.Alarms = "linear", 30, 2*time.Minute, []string{"churn-5xx", "churn-latency"}
	})
	last := func() string {
		out := ""
		s.Edit("churn", func(e *sagemakertest.Endpoint) { out = e.Deployment })
		return out
	}
	for n := 1; n <= 2; n++ {
		if _, err := apply(t, tg, release(n)); err != nil {
			t.Fatal(err)
		}
	}
	var c struct {
		BlueGreenUpdatePolicy struct {
			TrafficRoutingConfiguration struct {
				Type                  string
				WaitIntervalInSeconds int
				LinearStepSize        struct {
					Type  string
					Value int
				}
			}
			MaximumExecutionTimeoutInSeconds int
		}
		AutoRollbackConfiguration struct{ Alarms []struct{ AlarmName string } }
	}
	if err := json.Unmarshal([]byte(last()), &c); err != nil {
		t.Fatal(err)
	}
	r := c.BlueGreenUpdatePolicy.TrafficRoutingConfiguration
	if r.Type != "LINEAR" || r.WaitIntervalInSeconds != 120 || r.LinearStepSize.Type != "CAPACITY_PERCENT" || r.LinearStepSize.Value != 30 ||
		c.BlueGreenUpdatePolicy.MaximumExecutionTimeoutInSeconds != 4*120+600 || len(c.AutoRollbackConfiguration.Alarms) != 2 || c.AutoRollbackConfiguration.Alarms[1].AlarmName != "churn-latency" {
		t.Errorf("%+v", c)
	}
	canary := release(3)
	canary.Weight = 20
	if _, err := apply(t, tg, canary); err != nil {
		t.Fatal(err)
	}
	if last() != "" { // SageMaker refuses it, see the server
		t.Errorf("a canary with %s", last())
	}
	canary.Weight = 40
	if _, err := apply(t, tg, canary); err != nil || !strings.Contains(last(), "LINEAR") {
		t.Errorf("%v, %s", err, last())
	}
	if got := s.Shares("churn"); got[string(digest("image", 3))] != 40 || got[string(digest("image", 2))] != 60 {
		t.Errorf("%v", got)
	}
	// An alarm that rings.
	if _, err := s.target().(deploy.Promoter).Promote(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	const rang = "One or more CloudWatch alarms associated with this endpoint went into alarm. Auto rollback was initiated."
	s.Fate(string(digest("image", 4)), sagemakertest.Fate{Fail: rang})
	if _, err := apply(t, tg, release(4)); !errors.Is(err, deploy.ErrUnhealthy) || !strings.Contains(err.Error(), rang) {
		t.Errorf("%v", err)
	}
	serves(t, s, 3)
}

// An endpoint that others made is taken over, and told to be so; what it ran before is not Waybill's to roll back to.
func TestForeign(t *testing.T) {
	s := newSite(t, model(t), false, nil)
	c, ctx := s.client(), t.Context()
	theirs := types.ProductionVariant{VariantName: aws.String("AllTraffic"), ModelName: aws.String("theirs"), InstanceType: "ml.m5.large", InitialInstanceCount: aws.Int32(1)}
	_, err1 := c.CreateModel(ctx, &sdk.CreateModelInput{ModelName: aws.String("theirs"), ExecutionRoleArn: aws.String(role), PrimaryContainer: &types.ContainerDefinition{Image: aws.String("123456789012.dkr.ecr.eu-central-1.amazonaws.com/theirs:1")}})
	_, err2 := c.CreateEndpointConfig(ctx, &sdk.CreateEndpointConfigInput{EndpointConfigName: aws.String("theirs"), ProductionVariants: []types.ProductionVariant{theirs}})
	_, err3 := c.CreateEndpoint(ctx, &sdk.CreateEndpointInput{EndpointName: aws.String("churn"), EndpointConfigName: aws.String("theirs")})
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	s.Rest()
	st, err := s.target().Status(ctx)
	if err != nil || len(st.Shares) != 1 || st.Running() != "" || st.Shares[0].Weight != 100 {
		t.Errorf("%+v, %v", st, err)
	}
	p, err := s.target().Plan(ctx, release(1))
	if err != nil || len(p.Drift) != 1 || p.Drift[0].Old != "theirs" || p.From != "" || p.Create {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := apply(t, s.target(), release(1)); err != nil {
		t.Fatal(err)
	}
	serves(t, s, 1)
	if _, err := c.UpdateEndpoint(ctx, &sdk.UpdateEndpointInput{EndpointName: aws.String("churn"), EndpointConfigName: aws.String("theirs")}); err != nil {
		t.Fatal(err)
	}
	s.Rest()
	canary := release(1)
	canary.Weight = 10
	if _, err := apply(t, s.target(), canary); err != nil { // beside theirs
		t.Fatal(err)
	}
	if got := s.Shares("churn"); got[string(digest("image", 1))] != 10 || len(got) != 2 {
		t.Errorf("%v", got)
	}
	if o, err := s.target().Rollback(ctx, "", time.Minute); err != nil || o.Digest != "" || !o.Changed { // to theirs
		t.Errorf("%+v, %v", o, err)
	}
	if got := s.Shares("churn"); got[string(digest("image", 1))] != 0 || len(got) != 1 {
		t.Errorf("%v", got)
	}
	deployed(t, s, 1)
	serves(t, s, 1)
	if _, err := s.target().Rollback(ctx, "", time.Minute); !errors.Is(err, deploy.ErrGone) && !errors.Is(err, deploy.ErrNotFound) {
		t.Errorf("%v", err)
	}
	deployed(t, s, 2)
	if o, err := s.target().Rollback(ctx, "", time.Minute); err != nil || o.Digest != release(1).Digest {
		t.Errorf("%+v, %v", o, err)
	}
	serves(t, s, 1)
}

// Settings that changed are changes, not drift; a rollback brings the old ones back.
func TestSettingsChange(t *testing.T) {
	s := newSite(t, model(t), false, nil)
	deployed(t, s, 1)
	more := func(x *sagemaker.Settings) {
		x.Instance, x.Count, x.Env = "ml.c5.xlarge", 3, map[string]string{"KEY": "secret-value"}
	}
	p, err := s.target(more).Plan(t.Context(), release(1))
	if err != nil || len(p.Drift) > 0 {
		t.Fatalf("%+v, %v", p, err)
	}
	text := ""
	for _, ch := range p.Changes {
		text += ch.Field + ": " + ch.Old + " to " + ch.New + "\n"
	}
	for _, want := range []string{"instances: 2 of ml.c5.large to 3 of ml.c5.xlarge\n", "model: waybill-"} {
		if !strings.Contains(text, want) {
			t.Errorf("the plan does not say %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "secret-value") {
		t.Error("the plan shows a variable's value")
	}
	if _, err := apply(t, s.target(more), release(1)); err != nil {
		t.Fatal(err)
	}
	if p, err := s.target(more).Plan(t.Context(), release(1)); err != nil || len(p.Changes) > 0 {
		t.Errorf("%+v, %v", p, err)
	}
	live := func() (l sagemakertest.Live) {
		s.Edit("churn", func(e *sagemakertest.Endpoint) { l = e.Live[0] })
		return l
	}
	if l := live(); l.Count != 3 || l.Type != "ml.c5.xlarge" {
		t.Errorf("%+v", l)
	}
	if o, err := s.target(more).Rollback(t.Context(), "", time.Minute); err != nil || !o.Changed || o.Digest != release(1).Digest {
		t.Errorf("%+v, %v", o, err)
	}
	if l := live(); l.Count != 2 || l.Type != "ml.c5.large" {
		t.Errorf("%+v", l)
	}
}

// The configuration that serves was deleted by hand: what runs goes on, and deploys and rollbacks by digest work.
func TestDeletedConfig(t *testing.T) {
	s := newSite(t, model(t), false, nil)
	deployed(t, s, 1, 2)
	names := s.Configs()
	if _, err := s.client().DeleteEndpointConfig(t.Context(), &sdk.DeleteEndpointConfigInput{EndpointConfigName: &names[1]}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.target().Rollback(t.Context(), "", time.Minute); !errors.Is(err, deploy.ErrNotFound) {
		t.Errorf("%v", err)
	}
	if o, err := s.target().Rollback(t.Context(), release(1).Digest, time.Minute); err != nil || o.Digest != release(1).Digest {
		t.Errorf("%+v, %v", o, err)
	}
	serves(t, s, 1)
	deployed(t, s, 3)
	serves(t, s, 3)
}

func TestTags(t *testing.T) {
	s := newSite(t, model(t), false, nil)
	r := release(1)
	r.Labels = map[string]string{"team": "risk & fraud", "aws:reserved": "x"}
	if _, err := apply(t, s.target(), r); err != nil {
		t.Fatal(err)
	}
	tag := `"Tags":[{"Key":"team","Value":"risk _ fraud"},{"Key":"waybill:digest","Value":"` + string(r.Digest) + `"},{"Key":"waybill:model","Value":"churn 1.1"}]`
	if strings.Count(s.Dump(), tag) != 2 {
		t.Errorf("not on model and configuration: %s", s.Dump())
	}
}

// An endpoint whose name leaves no room for a number.
func TestLongName(t *testing.T) {
	s := newSite(t, model(t), false, nil)
	a, b := strings.Repeat("a", 63), strings.Repeat("a", 62)+"b"
	for n := 1; n <= 3; n++ {
		for i, e := range []string{a, b} {
			if _, err := apply(t, s.target(func(x *sagemaker.Settings) { x.Endpoint = e }), release((n+i)%3+1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, e := range []string{a, b} {
		o, err := s.target(func(x *sagemaker.Settings) { x.Endpoint = e }).Rollback(t.Context(), "", time.Minute)
		if err != nil || o.Digest != release((2+i)%3+1).Digest {
			t.Errorf("%+v, %v", o, err)
		}
	}
}

// What SageMaker says of releases that it does not run.
func TestCauses(t *testing.T) {
	for text, want := range map[string]error{
		"Requested image 123456789012.dkr.ecr.eu-central-1.amazonaws.com/churn@sha256:00 not found.":     deploy.ErrRelease,
		"Could not assume role arn:aws:iam::123456789012:role/churn. Please ensure that the role exists": deploy.ErrForbidden,
		"Unsupported manifest media type application/vnd.oci.image.index.v1+json":                        deploy.ErrPlatform,
		"The image's architecture arm64 is not supported by the instance type":                           deploy.ErrPlatform,
		"Image size 15255139283 is greater than supported size 10737418240":                              deploy.ErrTooLarge,
	} {
		s := newSite(t, model(t), false, nil)
		deployed(t, s, 1)
		s.Fate(string(digest("image", 2)), sagemakertest.Fate{Reject: text})
		if _, err := apply(t, s.target(), release(2)); !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
			t.Errorf("refused with %q: %v", text, err)
		}
		s.Fate(string(digest("image", 2)), sagemakertest.Fate{Fail: text})
		if _, err := apply(t, s.target(), release(2)); !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
			t.Errorf("failed with %q: %v", text, err)
		}
		serves(t, s, 1)
	}
	s := newSite(t, model(t), false, nil)
	s.Fate(string(digest("image", 1)), sagemakertest.Fate{Fail: "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error."})
	if _, err := apply(t, s.target(), release(1)); !errors.Is(err, deploy.ErrQuota) {
		t.Errorf("%v", err)
	}
}

func TestRefusedReleases(t *testing.T) {
	real, less := newSite(t, model(t), false, nil), newSite(t, model(t), true, nil)
	for name, x := range map[string]struct {
		s    *site
		edit func(*deploy.Release)
		want error
	}{
		"another registry": {real, func(r *deploy.Release) {
			r.Image = strings.Replace(r.Image, "123456789012.dkr.ecr.eu-central-1.amazonaws.com", "reg.example", 1)
		}, deploy.ErrRelease},
		"a long name": {real, func(r *deploy.Release) {
			r.Image = strings.Replace(r.Image, "/churn@", "/"+strings.Repeat("x", 200)+"@", 1)
		}, deploy.ErrRelease},
		"11 GB":               {real, func(r *deploy.Release) { r.Size = 11 << 30 }, deploy.ErrTooLarge},
		"arm64":               {real, func(r *deploy.Release) { r.Arches = []string{"arm64"} }, deploy.ErrPlatform},
		"arm64, serverless":   {less, func(r *deploy.Release) { r.Arches = []string{"arm64"} }, deploy.ErrPlatform},
		"a serverless canary": {less, func(r *deploy.Release) { r.Weight = 10 }, deploy.ErrRelease},
		"a bundle":            {real, func(r *deploy.Release) { r.Image, r.Bundle = "", "dir" }, deploy.ErrRelease},
	} {
		r := release(1)
		x.edit(&r)
		if _, err := x.s.target().Plan(t.Context(), r); !errors.Is(err, x.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	arm := release(1)
	arm.Arches = []string{"arm64"}
	if _, err := real.target(func(x *sagemaker.Settings) { x.Instance = "ml.c7g.large" }).Plan(t.Context(), arm); err != nil {
		t.Errorf("arm64 on Graviton: %v", err)
	}
	if _, err := real.target().Apply(t.Context(), &deploy.Plan{Release: release(2)}); !errors.Is(err, deploy.ErrRelease) {
		t.Errorf("another's plan: %v", err)
	}
	deployed(t, real, 1)
	became := real.target(func(x *sagemaker.Settings) { *x = less.settings() })
	if _, err := became.Plan(t.Context(), release(2)); !errors.Is(err, deploy.ErrRelease) {
		t.Errorf("instances to serverless: %v", err)
	}
	// The other way is fine, but not back again.
	deployed(t, less, 1)
	if _, err := apply(t, less.target(func(x *sagemaker.Settings) { *x = real.settings() }), release(2)); err != nil {
		t.Fatal(err)
	}
	if _, err := less.target(func(x *sagemaker.Settings) { *x = real.settings() }).Rollback(t.Context(), "", time.Minute); !errors.Is(err, deploy.ErrGone) {
		t.Errorf("back to serverless: %v", err)
	}
	serves(t, less, 2)
}

func TestSettings(t *testing.T) {
	cfg := aws.Config{Region: "eu-central-1"}
	real := sagemaker.Settings{Endpoint: "churn", Role: role, Instance: "ml.c5.large"}
	less := sagemaker.Settings{Endpoint: "churn", Role: role, Serverless: true}
	for _, s := range []sagemaker.Settings{real, less} {
		if _, err := sagemaker.New(cfg, s); err != nil {
			t.Fatal(err)
		}
		if _, err := sagemaker.New(aws.Config{}, s); err == nil {
			t.Error("no region is taken")
		}
	}
	for name, edit := range map[string]func(*sagemaker.Settings){
		"endpoint": func(s *sagemaker.Settings) { s.Endpoint = "a b" }, "none": func(s *sagemaker.Settings) { s.Endpoint = "" }, "long": func(s *sagemaker.Settings) { s.Endpoint = strings.Repeat("a", 64) },
		"role": func(s *sagemaker.Settings) { s.Role = "me" }, "instance": func(s *sagemaker.Settings) { s.Instance = "m5.large" }, "no instance": func(s *sagemaker.Settings) { s.Instance = "" },
		"count": func(s *sagemaker.Settings) { s.Count = -1 }, "traffic": func(s *sagemaker.Settings) { s.Traffic = "now" }, "step": func(s *sagemaker.Settings) { s.Step = 10 },
		"large step": func(s *sagemaker.Settings) { s.Traffic, s.Step = "canary", 51 }, "small step": func(s *sagemaker.Settings) { s.Traffic, s.Step = "linear", 9 },
		"interval": func(s *sagemaker.Settings) { s.Traffic, s.Interval = "linear", 1500*time.Millisecond }, "alarm": func(s *sagemaker.Settings) { s.Alarms = []string{""} },
		"alarms": func(s *sagemaker.Settings) { s.Alarms = strings.Split(strings.Repeat("a,", 11), ",") }, "memory": func(s *sagemaker.Settings) { s.Memory = 2048 },
		"variable": func(s *sagemaker.Settings) { s.Env = map[string]string{"1A": "x"} }, "label": func(s *sagemaker.Settings) { s.Env = map[string]string{sagemaker.DigestVariable: "x"} },
		"long value": func(s *sagemaker.Settings) { s.Env = map[string]string{"A": strings.Repeat("x", 1025)} },
	} {
		s := real
		edit(&s)
		if _, err := sagemaker.New(cfg, s); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	for name, edit := range map[string]func(*sagemaker.Settings){
		"memory": func(s *sagemaker.Settings) { s.Memory = 1536 }, "much": func(s *sagemaker.Settings) { s.Memory = 7168 }, "concurrency": func(s *sagemaker.Settings) { s.Concurrency = 201 },
		"provisioned": func(s *sagemaker.Settings) { s.Provisioned = 21 }, "instance": func(s *sagemaker.Settings) { s.Instance = "ml.c5.large" }, "alarms": func(s *sagemaker.Settings) { s.Alarms = []string{"a"} },
	} {
		s := less
		edit(&s)
		if _, err := sagemaker.New(cfg, s); err == nil {
			t.Errorf("serverless: %s is taken", name)
		}
	}
}
