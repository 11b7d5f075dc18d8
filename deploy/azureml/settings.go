package azureml

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/targets"
)

// DigestVariable is the environment variable with the artifact's digest: waybill-serve holds what it serves against it.
const DigestVariable = "WAYBILL_DIGEST"

// Settings of one endpoint. The keys are those of a target in an environment's file.
type Settings struct {
	Subscription  string            `json:"subscription" need:"true"`
	ResourceGroup string            `json:"resource-group" need:"true"`
	Workspace     string            `json:"workspace" need:"true"`
	Location      string            `json:"location" need:"true"` // of the workspace
	Endpoint      string            `json:"endpoint" need:"true"` // name of the online endpoint
	InstanceType  string            `json:"instance-type"`        // empty: Standard_DS3_v2
	Instances     int64             `json:"instances"`            // of each deployment; 0: 1
	Concurrency   int64             `json:"concurrency"`          // requests at once per instance; 0: 16
	Timeout       string            `json:"timeout"`              // of a request, up to 3m; empty: 5s
	Auth          string            `json:"auth"`                 // key, aml-token or aad-token; only read when the endpoint is created; empty: key
	Identity      string            `json:"identity"`             // id of a user-assigned identity; only read when the endpoint is created; empty: one of the system's
	Port          int64             `json:"port"`                 // 0: 8080
	ScoringPath   string            `json:"scoring-path"`         // empty: /v2/models/MODEL/infer
	Keep          int64             `json:"keep"`                 // deployments kept to roll back to, 1 to 5; 0: 2
	Env           map[string]string `json:"env"`                  // all variables but DigestVariable
	URL           string            `json:"url"`                  // of Azure Resource Manager; empty: the public cloud's
	Audience      string            `json:"audience"`             // of the tokens; empty: https://management.azure.com

	// Poll is between questions about a change under way, Backoff the longest between repetitions; 0: 5 s and 8 s.
	Poll    time.Duration `json:"-"`
	Backoff time.Duration `json:"-"`
	Log     *slog.Logger  `json:"-"` // nil discards
}

var (
	guids     = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
	groups    = regexp.MustCompile(`^[A-Za-z0-9._()-]{0,89}[A-Za-z0-9_()-]$`)
	spaces    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{2,32}$`)
	locations = regexp.MustCompile(`^[a-z0-9]{3,40}$`)
	endpoints = regexp.MustCompile(`^[A-Za-z]([A-Za-z0-9-]{1,30})[A-Za-z0-9]$`)
	instances = regexp.MustCompile(`^Standard_[A-Za-z0-9_-]{1,40}$`)
	paths     = regexp.MustCompile(`^/[A-Za-z0-9_./-]*[A-Za-z0-9_][A-Za-z0-9_./-]*$`)
	identitys = regexp.MustCompile(`^/subscriptions/[^/\s]+/resource[gG]roups/[^/\s]+/providers/Microsoft\.ManagedIdentity/userAssignedIdentities/[^/\s]+$`)
	envNames  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

var authModes = map[string]string{"key": "Key", "aml-token": "AMLToken", "aad-token": "AADToken"}

// filled gives s with its defaults.
func (s Settings) filled() Settings {
	def := func(v *string, d string) {
		if *v == "" {
			*v = d
		}
	}
	num := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	def(&s.InstanceType, "Standard_DS3_v2")
	def(&s.Timeout, "5s")
	def(&s.Auth, "key")
	def(&s.URL, "https://management.azure.com")
	def(&s.Audience, "https://management.azure.com")
	num(&s.Instances, 1)
	num(&s.Concurrency, 16)
	num(&s.Port, 8080)
	num(&s.Keep, 2)
	if s.Poll <= 0 {
		s.Poll = 5 * time.Second
	}
	if s.Backoff <= 0 {
		s.Backoff = 8 * time.Second
	}
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	s.URL, s.Audience = strings.TrimRight(s.URL, "/"), strings.TrimRight(s.Audience, "/")
	s.Env = maps.Clone(s.Env)
	return s
}

// Check looks at values; it contacts nobody.
func (s *Settings) Check() error {
	f := s.filled()
	d, err := time.ParseDuration(f.Timeout)
	bad := func(key, format string, args ...any) error {
		return &targets.Error{Path: key, Err: fmt.Errorf(format, args...)}
	}
	switch {
	case !guids.MatchString(f.Subscription):
		return bad("subscription", "%q is no id of one", f.Subscription)
	case !groups.MatchString(f.ResourceGroup):
		return bad("resource-group", "%q is no name of one", f.ResourceGroup)
	case !spaces.MatchString(f.Workspace):
		return bad("workspace", "%q is no name of one", f.Workspace)
	case !locations.MatchString(f.Location):
		return bad("location", "%q is none, as westeurope is one", f.Location)
	case !endpoints.MatchString(f.Endpoint):
		return bad("endpoint", "%q: 3 to 32 letters, digits and hyphens, the first a letter", f.Endpoint)
	case !instances.MatchString(f.InstanceType):
		return bad("instance-type", "%q is none, as Standard_DS3_v2 is one", f.InstanceType)
	case f.Instances < 1 || f.Instances > 50:
		return bad("instances", "%d is not between 1 and 50", f.Instances)
	case f.Concurrency < 1 || f.Concurrency > 1000:
		return bad("concurrency", "%d is not between 1 and 1000", f.Concurrency)
	case err != nil || d < time.Second || d > 3*time.Minute || d%time.Second != 0:
		return bad("timeout", "%q is not in whole seconds between 1s and 3m", f.Timeout)
	case authModes[f.Auth] == "":
		return bad("auth", "%q: key, aml-token or aad-token", f.Auth)
	case f.Identity != "" && !identitys.MatchString(f.Identity):
		return bad("identity", "%q is no id of a user-assigned identity", f.Identity)
	case f.Port < 1 || f.Port > 65535:
		return bad("port", "%d is not between 1 and 65535", f.Port)
	case f.ScoringPath != "" && !paths.MatchString(f.ScoringPath):
		return bad("scoring-path", "%q is no path", f.ScoringPath)
	case f.Keep < 1 || f.Keep > 5:
		return bad("keep", "%d is not between 1 and 5", f.Keep)
	}
	for k := range f.Env {
		switch {
		case k == DigestVariable:
			return bad("env", "the variable %s is the target's own", k)
		case !envNames.MatchString(k):
			return bad("env", "%q is no name of a variable", k)
		case k == "PORT":
			return bad("env", "PORT is the key port")
		}
	}
	for key, v := range map[string]string{"url": f.URL, "audience": f.Audience} {
		u, err := url.Parse(v)
		if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Scheme != "https" && (key != "url" || !loopback(u)) {
			return bad(key, "an https URL is expected")
		}
	}
	return nil
}

// loopback tells whether u leads to this machine by plain http.
func loopback(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())
}

// Open implements targets.Settings: the credentials are those that Azure's own tools find (environment, workload identity, managed
// identity, az login).
func (s *Settings) Open(_ context.Context, log *slog.Logger) (deploy.Target, error) {
	cred, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		return nil, fmt.Errorf("%w: Azure ML: no credentials are found", deploy.ErrUnauthorized)
	}
	x := *s
	x.Log = log
	return New(cred, x)
}

// Kind is the row for targets.Parse.
func Kind() targets.Kind {
	return targets.Kind{Name: "azureml", Runs: targets.Image, Settings: func() targets.Settings { return &Settings{} }}
}
