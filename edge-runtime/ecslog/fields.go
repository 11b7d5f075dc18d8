package ecslog

// Version of the Elastic Common Schema that the fields below are of.
const Version = "9.4.0"

// kind is how a field is stored, and so what its value must look like in JSON.
type kind int

const (
	keyword kind = iota // a string
	text                // a string that is searched by words
	long                // a whole number
	date                // RFC 3339
	list                // an array of keywords
	ip                  // an address
)

// fields are the ECS fields that this program writes, with their types. A test compares them with the published list.
// What is not among them goes below labels.
var fields = map[string]kind{
	"@timestamp":                date,
	"message":                   text,
	"ecs.version":               keyword,
	"client.ip":                 ip,
	"error.code":                keyword,
	"error.message":             text,
	"error.type":                keyword,
	"event.action":              keyword,
	"event.category":            list,
	"event.dataset":             keyword,
	"event.duration":            long, // nanoseconds
	"event.kind":                keyword,
	"event.outcome":             keyword,
	"event.provider":            keyword,
	"event.reason":              keyword,
	"event.sequence":            long,
	"event.type":                list,
	"file.path":                 keyword,
	"host.hostname":             keyword,
	"http.request.method":       keyword,
	"http.request.body.bytes":   long,
	"http.response.body.bytes":  long,
	"http.response.status_code": long,
	"http.version":              keyword,
	"log.level":                 keyword,
	"log.logger":                keyword,
	"process.pid":               long,
	"service.name":              keyword,
	"service.node.name":         keyword,
	"service.type":              keyword,
	"service.version":           keyword,
	"user_agent.original":       keyword,
	"url.path":                  keyword,
}
