// Renders conversations through Go's own text/template, called as Ollama calls it.
//
// Reads a list of {"template": ..., "conversations": [[{"role": ..., "content": ...}, ...], ...]} from stdin and
// writes the prompts, a list for each template. What Ollama does before it executes a template is done here too:
// neighbors of one role become one message with an empty line between, and the texts of all system messages, joined
// likewise, are .System while the messages themselves stay among .Messages.
package main

import (
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

type Job struct {
	Template      string      `json:"template"`
	Conversations [][]Message `json:"conversations"`
}

func values(messages []Message) map[string]any {
	var system []string
	var joined []*Message
	for index := range messages {
		message := &messages[index]
		if message.Role == "system" {
			system = append(system, message.Content)
		}
		if last := len(joined) - 1; last >= 0 && joined[last].Role == message.Role {
			joined[last].Content += "\n\n" + message.Content
		} else {
			joined = append(joined, message)
		}
	}
	return map[string]any{
		"System":     strings.Join(system, "\n\n"),
		"Messages":   joined,
		"Tools":      []any(nil),
		"Response":   "",
		"Think":      false,
		"IsThinkSet": false,
	}
}

func main() {
	var jobs []Job
	check(json.NewDecoder(os.Stdin).Decode(&jobs))
	prompts := make([][]string, len(jobs))
	for number, job := range jobs {
		parsed, err := template.New("").Option("missingkey=zero").Parse(job.Template)
		check(err)
		for _, messages := range job.Conversations {
			var prompt strings.Builder
			check(parsed.Execute(&prompt, values(messages)))
			prompts[number] = append(prompts[number], prompt.String())
		}
	}
	check(json.NewEncoder(os.Stdout).Encode(prompts))
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
