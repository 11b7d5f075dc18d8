package sagemaker

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/targets"
)

// Kinds are sagemaker, endpoints with instances, and sagemaker-serverless, as environments.yaml names them.
func Kinds() []targets.Kind {
	return []targets.Kind{
		{Name: "sagemaker", Runs: targets.Image, Variant: "sagemaker", Settings: func() targets.Settings { return &realtime{} }},
		{Name: "sagemaker-serverless", Runs: targets.Image, Variant: "sagemaker", Settings: func() targets.Settings { return &serverless{} }},
	}
}

// realtime is what environments.yaml says about an endpoint with instances.
type realtime struct {
	Endpoint   string            `json:"endpoint" need:"true"`
	Region     string            `json:"region" need:"true"`
	Role       string            `json:"role" need:"true"`
	Instance   string            `json:"instance" need:"true"`
	Count      int               `json:"count"`
	Autoscaled bool              `json:"autoscaled"`
	Traffic    string            `json:"traffic"`
	Step       int               `json:"step"`
	Interval   string            `json:"interval"`
	Alarms     []string          `json:"alarms"`
	Env        map[string]string `json:"env"`
	API        string            `json:"api"`
}

func (e *realtime) settings() (Settings, error) {
	s := Settings{Endpoint: e.Endpoint, Role: e.Role, Instance: e.Instance, Autoscaled: e.Autoscaled, Traffic: e.Traffic, Alarms: e.Alarms, Env: e.Env, API: e.API}
	var err error
	if s.Count, err = number("count", e.Count); err != nil {
		return s, err
	}
	if s.Step, err = number("step", e.Step); err != nil {
		return s, err
	}
	if e.Interval != "" {
		d, err := time.ParseDuration(e.Interval)
		if err != nil || d <= 0 {
			return s, &targets.Error{Path: "interval", Err: fmt.Errorf("%q: a length of time up to 1h is expected, as in 5m", e.Interval)}
		}
		s.Interval = d
	}
	return s, nil
}

// Check implements targets.Settings.
func (e *realtime) Check() error {
	s, err := e.settings()
	return check(s, err, e.Region)
}

// Open implements targets.Settings. Credentials are those of AWS's own tools: variables, profiles, web identities, instance roles.
func (e *realtime) Open(ctx context.Context, log *slog.Logger) (deploy.Target, error) {
	s, err := e.settings()
	return open(ctx, s, err, e.Region, log)
}

// serverless is what environments.yaml says about a serverless endpoint.
type serverless struct {
	Endpoint    string            `json:"endpoint" need:"true"`
	Region      string            `json:"region" need:"true"`
	Role        string            `json:"role" need:"true"`
	Memory      int               `json:"memory"`
	Concurrency int               `json:"concurrency"`
	Provisioned int               `json:"provisioned"`
	Env         map[string]string `json:"env"`
	API         string            `json:"api"`
}

func (e *serverless) settings() (Settings, error) {
	s := Settings{Endpoint: e.Endpoint, Role: e.Role, Serverless: true, Env: e.Env, API: e.API}
	var err error
	if s.Memory, err = number("memory", e.Memory); err != nil {
		return s, err
	}
	if s.Concurrency, err = number("concurrency", e.Concurrency); err != nil {
		return s, err
	}
	s.Provisioned, err = number("provisioned", e.Provisioned)
	return s, err
}

// Check implements targets.Settings.
func (e *serverless) Check() error {
	s, err := e.settings()
	return check(s, err, e.Region)
}

// Open implements targets.Settings.
func (e *serverless) Open(ctx context.Context, log *slog.Logger) (deploy.Target, error) {
	s, err := e.settings()
	return open(ctx, s, err, e.Region, log)
}

// number is a value as SageMaker's calls have it. Below zero nothing is a default.
func number(key string, n int) (int32, error) {
	if n < 0 || n > math.MaxInt32 {
		return 0, &targets.Error{Path: key, Err: fmt.Errorf("%d is not a number that SageMaker takes", n)}
	}
	return int32(n), nil
}

func check(s Settings, err error, region string) error {
	if err == nil {
		_, err = New(aws.Config{Region: region}, s)
	}
	return err
}

func open(ctx context.Context, s Settings, err error, region string, log *slog.Logger) (deploy.Target, error) {
	if err != nil {
		return nil, err
	}
	s.Log = log
	cfg, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithRegion(region))
	if err != nil {
		return nil, fmt.Errorf("%w: AWS's configuration: %w", deploy.ErrUnauthorized, err)
	}
	return New(cfg, s)
}
