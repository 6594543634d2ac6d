// What a chat screen needs, in Go, with go-redis:
//
//	go mod init example && go get github.com/redis/go-redis/v9
//	go run read.go redis://localhost:6379 room ben 17600000001728660 17600000002110345
//
// It prints the counts of the messages, which of them are ben's, and who chose each value of the
// first message. Then it prints each change. Every line is JSON.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/url"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	namespace = "tally"
	pageSize  = 100
	wait      = time.Second
	whoEpoch  = 17_000_000_000_000_000
)

var (
	channelCodes = strings.NewReplacer("%", "%25", "{", "%7B", "}", "%7D")
	partCodes    = strings.NewReplacer("%", "%25", ":", "%3A")
)

// Counts is type → value → count.
type Counts map[string]map[string]int

// Page is what messages had at one instant.
type Page struct {
	Position string            `json:"position"`
	InDoubt  bool              `json:"in_doubt"`
	Counts   map[string]Counts `json:"counts"`
}

// Action is one user's reaction. Timetokens stay text: 17 digits do not fit a float64.
type Action struct {
	Type  string `json:"type"`
	Value string `json:"value"`
	User  string `json:"user,omitempty"`
	At    string `json:"at"`
}

func keyOf(channel, name string) string {
	return namespace + ":{" + channelCodes.Replace(channel) + "}:" + name
}

// unquote undoes the encoding of a type, or of a value of `actions`.
func unquote(text string) string {
	plain, err := url.PathUnescape(text)
	if err != nil {
		return text
	}
	return plain
}

// readPage returns the counts of messages at one instant, and the position in the journal.
func readPage(ctx context.Context, rdb *redis.Client, channel string, messages []string) (Page, error) {
	pipe := rdb.TxPipeline()
	head := pipe.Get(ctx, keyOf(channel, "head"))
	owed := pipe.Exists(ctx, keyOf(channel, "owed"))
	hashes := make([]*redis.MapStringStringCmd, len(messages))
	for i, message := range messages {
		hashes[i] = pipe.HGetAll(ctx, keyOf(channel, "counts:"+message))
	}
	if _, err := pipe.Exec(ctx); err != nil && err != redis.Nil {
		return Page{}, err
	}
	page := Page{Position: "0-0", InDoubt: owed.Val() == 1, Counts: map[string]Counts{}}
	if head.Val() != "" {
		page.Position = head.Val()
	}
	for i, message := range messages {
		page.Counts[message] = readCounts(hashes[i].Val())
	}
	return page, nil
}

// readCounts splits the fields of `counts`: <type>:<value>. The value is raw.
func readCounts(fields map[string]string) Counts {
	counts := Counts{}
	for field, text := range fields {
		kind, value, _ := strings.Cut(field, ":")
		kind = unquote(kind)
		if counts[kind] == nil {
			counts[kind] = map[string]int{}
		}
		counts[kind][value], _ = strconv.Atoi(text)
	}
	return counts
}

// readMine returns which reactions of a message are a user's, and since when.
func readMine(ctx context.Context, rdb *redis.Client, channel, message string, counts Counts, user string) ([]Action, error) {
	mine, tallies, fields := []Action{}, []Action{}, []string{}
	for kind, values := range counts {
		for value := range values {
			tallies = append(tallies, Action{Type: kind, Value: value})
			fields = append(fields, partCodes.Replace(kind)+":"+partCodes.Replace(value)+":"+user)
		}
	}
	if len(fields) == 0 {
		return mine, nil
	}
	times, err := rdb.HMGet(ctx, keyOf(channel, "actions:"+message), fields...).Result()
	if err != nil {
		return nil, err
	}
	for i, at := range times {
		if at, ok := at.(string); ok {
			tallies[i].At = at
			mine = append(mine, tallies[i])
		}
	}
	return mine, nil
}

// readWho returns who chose a value, oldest first, a hundred at most.
func readWho(ctx context.Context, rdb *redis.Client, channel, message, kind, value string) ([]Action, error) {
	tally := partCodes.Replace(kind) + ":" + partCodes.Replace(value)
	pipe := rdb.TxPipeline()
	count := pipe.HGet(ctx, keyOf(channel, "counts:"+message), partCodes.Replace(kind)+":"+value)
	size := pipe.ZCard(ctx, keyOf(channel, "who:"+message+":"+tally))
	users := pipe.ZRangeWithScores(ctx, keyOf(channel, "who:"+message+":"+tally), 0, pageSize-1)
	if _, err := pipe.Exec(ctx); err != nil && err != redis.Nil {
		return nil, err
	}
	who := []Action{}
	if strconv.FormatInt(size.Val(), 10) == count.Val() {
		for _, user := range users.Val() {
			at := strconv.FormatInt(int64(user.Score)+whoEpoch, 10)
			who = append(who, Action{kind, value, user.Member.(string), at})
		}
		return who, nil
	}
	// Few have reacted, or the worker has not yet written all users.
	fields, err := rdb.HGetAll(ctx, keyOf(channel, "actions:"+message)).Result()
	if err != nil {
		return nil, err
	}
	for field, at := range fields {
		if user, ok := strings.CutPrefix(field, tally+":"); ok {
			who = append(who, Action{kind, value, user, at})
		}
	}
	sort.Slice(who, func(i, j int) bool {
		left, right := who[i].At, who[j].At
		if len(left) != len(right) {
			return len(left) < len(right)
		}
		return left < right
	})
	return who[:min(len(who), pageSize)], nil
}

// follow shows each change after a position. It returns when the position is gone: read a new
// page then.
func follow(ctx context.Context, rdb *redis.Client, channel, position string, show func(any)) error {
	head, journal := keyOf(channel, "head"), keyOf(channel, "journal")
	for {
		pipe := rdb.TxPipeline()
		newest := pipe.Get(ctx, head)
		entries := pipe.XRangeN(ctx, journal, "("+position, "+", pageSize)
		if _, err := pipe.Exec(ctx); err != nil && err != redis.Nil {
			return err
		}
		for _, entry := range entries.Val() {
			if entry.Values["after"] != position {
				return nil // an entry is missing
			}
			for number := 0; number < len(entry.Values)-2; number++ {
				text, _ := entry.Values[strconv.Itoa(number)].(string)
				show(readChange(text))
			}
			position = entry.ID
		}
		if len(entries.Val()) > 0 {
			continue
		}
		if newest.Val() != position && (newest.Val() != "" || position != "0-0") {
			return nil // Redis went back, or the journal expired
		}
		err := rdb.XRead(ctx, &redis.XReadArgs{Streams: []string{journal, position}, Block: wait}).Err()
		if err != nil && err != redis.Nil {
			return err
		}
	}
}

// readChange reads <event> <outcome> <action timetoken> <new count> <message timetoken> <field>.
func readChange(text string) map[string]any {
	parts := strings.SplitN(text, " ", 6)
	if parts[0] == "expired" {
		return map[string]any{"message": parts[4], "expired": true} // all its counts are gone
	}
	count, _ := strconv.Atoi(parts[3])
	field := strings.SplitN(parts[5], ":", 3)
	return map[string]any{
		"message": parts[4],
		"type":    unquote(field[0]),
		"value":   unquote(field[1]),
		"count":   count,
	}
}

func run(ctx context.Context, address, channel, user string, messages []string) error {
	options, err := redis.ParseURL(address)
	if err != nil {
		return err
	}
	rdb := redis.NewClient(options)
	schema, err := rdb.HGet(ctx, namespace+":meta", "schema").Result()
	if err != nil || schema != "1" {
		return fmt.Errorf("no tallies of schema 1: check address, database and namespace (%v)", err)
	}
	encoder := json.NewEncoder(os.Stdout)
	show := func(line any) { _ = encoder.Encode(line) }
	for {
		page, err := readPage(ctx, rdb, channel, messages)
		if err != nil {
			return err
		}
		show(page)
		first := messages[0]
		mine, err := readMine(ctx, rdb, channel, first, page.Counts[first], user)
		if err != nil {
			return err
		}
		show(map[string]any{"mine": mine})
		for kind, values := range page.Counts[first] {
			for value := range values {
				who, err := readWho(ctx, rdb, channel, first, kind, value)
				if err != nil {
					return err
				}
				show(map[string]any{"who": who})
			}
		}
		if err := follow(ctx, rdb, channel, page.Position, show); err != nil {
			return err
		}
	}
}

func main() {
	log.Fatal(run(context.Background(), os.Args[1], os.Args[2], os.Args[3], os.Args[4:]))
}
