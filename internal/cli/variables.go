package cli

import (
	"fmt"
	"sort"
	"strings"

	ucli "github.com/urfave/cli/v2"
)

// variables that no flag carries.
func variables() [][2]string {
	return [][2]string{
		{"WAYBILL_HOME", "folder of the local store and its state"},
		{"WAYBILL_IMPORT_PASSWORD", "passphrase of the file that keys import reads, when it differs from the new one"},
		{"WAYBILL_PKCS11_PIN", "PIN of a PKCS #11 token; without it COSIGN_PKCS11_PIN, then a prompt"},
		{"SOURCE_DATE_EPOCH", "seconds since 1970: the time in the bill of materials that pack writes; without it there is none"},
		{"WAYBILL_PASSWORD", "passphrase of private keys; without it COSIGN_PASSWORD, then a prompt"},
		{"WAYBILL_REGISTRY_PASSWORD", "password for WAYBILL_REGISTRY_USERNAME or --username"},
		{"WAYBILL_REGISTRY_TOKEN", "token sent to the registry as it is, in place of a name and a password"},
		{"WAYBILL_TOKEN_HOSTS", "token servers that may have the credentials though they are not under the registry's domain"},
		{"REGISTRY_AUTH_FILE", "credentials in docker's form, before DOCKER_CONFIG (config.json) and podman's auth.json"},
		{"HTTPS_PROXY", "proxy for registries, with HTTP_PROXY and NO_PROXY"},
		{"NO_COLOR", "no colour, unless --color always"},
		{"CLICOLOR_FORCE", "colour also when the output is no terminal"},
	}
}

// environmentText lists every variable that a command reads.
func environmentText(table []Command) string {
	rows := map[string]string{}
	for _, v := range variables() {
		rows[v[0]] = v[1]
	}
	var walk func(level []Command, path string)
	note := func(flags []ucli.Flag, path string) {
		for _, f := range flags {
			for _, v := range f.(docFlag).GetEnvVars() {
				t := "--" + f.Names()[0]
				if path != "" {
					t += " of " + path
				}
				if old, ok := rows[v]; ok {
					t = old + ", " + path
				}
				rows[v] = t
			}
		}
	}
	walk = func(level []Command, path string) {
		for _, c := range level {
			p := strings.TrimSpace(path + " " + c.Name)
			note(c.Flags, p)
			walk(c.Sub, p)
		}
	}
	note(globals(), "")
	walk(table, "")
	var names []string
	for n := range rows {
		names = append(names, n)
	}
	sort.Strings(names)
	var b strings.Builder
	b.WriteString("A flag wins over its variable, a variable over waybill.yaml, that over the default.\n\n")
	for _, n := range names {
		fmt.Fprintf(&b, "%-25s %s\n", n, rows[n])
	}
	return b.String()
}
