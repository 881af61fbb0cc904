// A client with the pool of net/http: works off a plan (tests/src/pools/plan.rs) and says what came of it.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	usual    = 64 << 10
	longest  = 512 << 10
	patience = 30 * time.Second
)

type kind struct {
	name, header, value string
	servers             map[string]bool
}

type plan struct {
	stop    string
	workers int
	pause   time.Duration
	headers [][2]string
	urls    []string
	streams map[string][]byte
	names   []string
	kinds   []kind
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func read(path string) *plan {
	p := &plan{streams: map[string][]byte{}}
	lines := bufio.NewScanner(must(os.Open(path)))
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		switch words[0] {
		case "stop":
			p.stop = words[1]
		case "workers":
			p.workers = must(strconv.Atoi(words[1]))
		case "pause":
			p.pause = time.Duration(must(strconv.Atoi(words[1]))) * time.Millisecond
		case "header":
			p.headers = append(p.headers, [2]string{words[1], words[2]})
		case "url":
			p.urls = append(p.urls, words[1])
		case "stream":
			p.streams[words[1]] = must(os.ReadFile(words[2]))
			p.names = append(p.names, words[1])
		case "kind":
			k := kind{name: words[1], servers: map[string]bool{}}
			for _, server := range strings.Split(words[2], ",") {
				k.servers[server] = true
			}
			if len(words) > 4 {
				k.header, k.value = words[3], words[4]
			}
			p.kinds = append(p.kinds, k)
		default:
			panic("unknown line: " + lines.Text())
		}
	}
	return p
}

type report struct {
	sync.Mutex
	out    *json.Encoder
	served map[[2]string]int
}

func (r *report) bad(outcome string, k kind, request string, err error, sent int64) {
	r.Lock()
	defer r.Unlock()
	r.out.Encode(map[string]any{"outcome": outcome, "kind": k.name, "request": request, "error": err.Error(),
		"sent": sent, "ended": time.Now().UnixMicro()})
}

func (r *report) good(k kind, server string) {
	r.Lock()
	defer r.Unlock()
	r.served[[2]string{k.name, server}]++
}

// What is sent without a length is chunked.
type unsized struct{ io.Reader }

func exchange(client *http.Client, p *plan, r *report, dice *rand.Rand) {
	k := p.kinds[dice.Intn(len(p.kinds))]
	length := dice.Intn(usual)
	if dice.Intn(50) == 0 {
		length = dice.Intn(longest)
	}
	method, target := "GET", fmt.Sprintf("/bytes/%d", length)
	var body []byte
	var reader io.Reader
	switch roll := dice.Intn(100); {
	case roll < 15:
		target = fmt.Sprintf("/chunked/%d/5", length)
	case roll < 20:
		method = "HEAD"
	case roll < 60:
		method, target = "POST", "/mirror"
		stream := p.streams[p.names[dice.Intn(len(p.names))]]
		from := dice.Intn(len(stream) - length)
		body = stream[from : from+length]
		reader = bytes.NewReader(body)
		if roll < 30 {
			reader = unsized{reader}
		}
	}
	request := must(http.NewRequest(method, p.urls[dice.Intn(len(p.urls))]+target, reader))
	for _, header := range p.headers {
		request.Header.Set(header[0], header[1])
	}
	if k.header != "" {
		request.Header.Set(k.header, k.value)
	}
	sent := time.Now().UnixMicro()
	request.Header.Set("x-kind", k.name)
	request.Header.Set("x-sent", strconv.FormatInt(sent, 10))
	name := fmt.Sprintf("%s %s of %d bytes", method, target, length)
	response, err := client.Do(request)
	if err != nil {
		r.bad("failed", k, name, err, sent)
		return
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if err != nil {
		r.bad("failed", k, name, err, sent)
		return
	}
	server := response.Header.Get("x-served-by")
	want := body
	if stream := p.streams[server]; method == "GET" && len(stream) >= length {
		want = stream[:length]
	}
	switch {
	case response.StatusCode != 200:
		err = fmt.Errorf("status %d", response.StatusCode)
	case !k.servers[server]:
		err = fmt.Errorf("served by %q", server)
	case !bytes.Equal(got, want):
		err = fmt.Errorf("%d bytes of %s are not the %d that are due", len(got), server, len(want))
	default:
		r.good(k, server)
		return
	}
	r.bad("wrong", k, name, err, sent)
}

func main() {
	p := read(os.Args[1])
	transport := &http.Transport{MaxIdleConnsPerHost: p.workers, IdleConnTimeout: 0}
	client := &http.Client{Transport: transport, Timeout: patience}
	r := &report{out: json.NewEncoder(os.Stdout), served: map[[2]string]int{}}
	var working sync.WaitGroup
	for worker := 0; worker < p.workers; worker++ {
		working.Add(1)
		go func(seed int64) {
			defer working.Done()
			dice := rand.New(rand.NewSource(seed))
			for {
				if _, err := os.Stat(p.stop); err == nil {
					return
				}
				exchange(client, p, r, dice)
				time.Sleep(time.Duration(dice.Int63n(int64(p.pause))))
			}
		}(int64(worker))
	}
	working.Wait()
	for served, count := range r.served {
		r.out.Encode(map[string]any{"outcome": "served", "kind": served[0], "server": served[1], "count": count})
	}
	r.out.Encode(map[string]any{"outcome": "end"})
}
