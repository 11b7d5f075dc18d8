package cloudrun

import (
	"fmt"
	"strings"

	run "google.golang.org/api/run/v2"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/google"
)

// conditionCause is why a revision does not come up, by its condition.
func conditionCause(c *run.GoogleCloudRunV2Condition) error {
	switch c.Reason {
	case "CONTAINER_MISSING", "CONTAINER_PERMISSION_DENIED", "CONTAINER_IMAGE_UNAUTHORIZED":
		return fmt.Errorf("%w: %w", deploy.ErrRelease, google.ErrImage)
	case "SECRETS_ACCESS_CHECK_FAILED", "ENCRYPTION_KEY_PERMISSION_DENIED", "CONTAINER_IMAGE_AUTHORIZATION_CHECK_FAILED":
		return deploy.ErrForbidden
	}
	if c.RevisionReason == "ACTIVE_REVISION_LIMIT_REACHED" {
		return deploy.ErrQuota
	}
	if c.RevisionReason != "HEALTH_CHECK_CONTAINER_ERROR" || strings.Contains(c.Message, "exec format error") {
		if cause := google.TextCause(c.Message); cause != nil {
			return cause
		}
	}
	return deploy.ErrUnhealthy
}
