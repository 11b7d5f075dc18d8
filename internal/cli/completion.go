package cli

import (
	"context"
	"sort"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
)

func completionCommand() Command {
	return Command{
		Name: "completion", Group: Other, Summary: "print the completion script of a shell", Args: "bash|zsh|fish|powershell", Min: 1, Max: 1,
		Long: "The script asks this program for the candidates, so it stays right when the program changes.",
		Examples: []string{
			"waybill completion bash > /etc/bash_completion.d/waybill",
			`waybill completion zsh > "${fpath[1]}/_waybill"`,
			"waybill completion fish > ~/.config/fish/completions/waybill.fish",
			"waybill completion powershell | Out-String | Invoke-Expression",
		},
		Run: runCompletion,
	}
}

func runCompletion(_ context.Context, c *Call) error {
	s, ok := completionScripts()[c.Args[0]]
	if !ok {
		return diag.New(diag.Usage, "completion: no script for %q", c.Args[0]).Hint("waybill completion bash|zsh|fish|powershell")
	}
	c.UI.Out.Printf("%s", s)
	return nil
}

// completeCommand is what the scripts call: the words typed so far, the last one unfinished, give candidates by line.
func completeCommand() Command {
	return Command{
		Name: "__complete", Group: Other, Hidden: true, Summary: "candidates for the completion scripts", Args: "WORDS", Max: -1,
		Run: func(_ context.Context, c *Call) error {
			for _, w := range complete(commands(), c.Args) {
				c.UI.Data("%s", w)
			}
			return nil
		},
	}
}

// complete lists candidates for the last of words, each as "word<TAB>description".
func complete(table []Command, words []string) []string {
	if len(words) == 0 {
		words = []string{""}
	}
	last := words[len(words)-1]
	level, flags := table, globals()
	var cmd *Command
	for i := 0; i < len(words)-1; i++ {
		w := words[i]
		if w == "--" {
			return nil
		}
		if strings.HasPrefix(w, "-") {
			f := tableOf(flags)[strings.TrimLeft(w, "-")]
			if f != nil && f.TakesValue() {
				if i == len(words)-2 {
					return values(strings.TrimLeft(w, "-"), last)
				}
				i++
			}
			continue
		}
		if c := find(level, w); c != nil && (cmd == nil || cmd.Run == nil) {
			cmd, level = c, c.Sub
			flags = append(globals(), c.Flags...)
		}
	}
	var out []string
	if strings.HasPrefix(last, "-") {
		for _, f := range flags {
			for _, n := range f.Names() {
				if len(n) > 1 && strings.HasPrefix("--"+n, last) {
					_, text := placeholder(f.(docFlag).GetUsage())
					out = append(out, "--"+n+"\t"+text)
				}
			}
		}
	} else if cmd == nil || cmd.Run == nil {
		for _, c := range level {
			if !c.Hidden && strings.HasPrefix(c.Name, last) {
				out = append(out, c.Name+"\t"+c.Summary)
			}
		}
	} else if cmd.Name == "completion" {
		for n := range completionScripts() {
			if strings.HasPrefix(n, last) {
				out = append(out, n+"\t")
			}
		}
	}
	sort.Strings(out)
	return out
}

func values(flag, last string) []string {
	var all, out []string
	switch flag {
	case "output", "o":
		all = []string{"json", "text"}
	case "color":
		all = []string{"always", "auto", "never"}
	}
	for _, v := range all {
		if strings.HasPrefix(v, last) {
			out = append(out, v+"\t")
		}
	}
	return out
}

func completionScripts() map[string]string {
	return map[string]string{
		"bash": `# bash completion for waybill
_waybill() {
  local IFS=$'\n' line
  COMPREPLY=()
  while IFS= read -r line; do
    COMPREPLY+=("${line%%$'\t'*}")
  done < <("${COMP_WORDS[0]}" __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o default -F _waybill waybill
`,
		"zsh": `#compdef waybill
_waybill() {
  local -a candidates
  local line
  while IFS= read -r line; do
    candidates+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
  done < <("${words[1]}" __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)
  if (( ${#candidates} )); then
    _describe 'waybill' candidates
  else
    _files
  fi
}
compdef _waybill waybill
`,
		"fish": `# fish completion for waybill
function __waybill_complete
  set -l words (commandline -opc) (commandline -ct)
  $words[1] __complete -- $words[2..-1] 2>/dev/null
end
complete -c waybill -a '(__waybill_complete)'
`,
		"powershell": `# PowerShell completion for waybill
Register-ArgumentCompleter -Native -CommandName waybill -ScriptBlock {
  param($word, $ast, $position)
  $words = @($ast.CommandElements | Select-Object -Skip 1 | ForEach-Object { $_.ToString() })
  if ($word -eq '') { $words += '""' }
  & waybill __complete '--' @words 2>$null | ForEach-Object {
    $name, $text = $_ -split "` + "`t" + `", 2
    if (-not $text) { $text = $name }
    [System.Management.Automation.CompletionResult]::new($name, $name, 'ParameterValue', $text)
  }
}
`,
	}
}
