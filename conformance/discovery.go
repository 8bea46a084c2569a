package conformance

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

type tagList struct {
	Name string   `json:"name"`
	Tags []string `json:"tags"`
}

// tags asks for one page of a list of tags.
func (c *check) tags(target, repo string) (tagList, *answer) {
	a := c.want(c.do(http.MethodGet, target, nil), http.StatusOK)
	var list tagList
	if err := json.Unmarshal(a.body, &list); err != nil {
		c.failf("%v: not a list of tags: %v", a, err)
	}
	if list.Name != repo {
		c.failf("%v: name is %q, want %q", a, list.Name, repo)
	}
	return list, a
}

// next is the URL of the following page, "" if there is none; RFC 8288 allows the relation with or without quotes.
func (c *check) next(a *answer) string {
	link := strings.Join(a.header.Values("Link"), ", ")
	if link == "" {
		return ""
	}
	m := regexp.MustCompile(`^<([^>]+)>\s*;\s*rel="?next"?$`).FindStringSubmatch(link)
	if m == nil {
		c.failf("%v: Link %q is not <url>; rel=\"next\"", a, link)
	}
	base, err := url.Parse(a.url)
	if err != nil {
		c.failf("%v: %v", a, err)
	}
	u, err := base.Parse(m[1])
	if err != nil {
		c.failf("%v: Link %q: %v", a, link, err)
	}
	return u.String()
}

func tagListCases() []testCase {
	const section = "Content Discovery/Listing Tags"
	// in both orders that the specification allows: no two differ only by case
	names := []string{"a", "b1", "b2", "c", "d", "e", "v1.0", "v1.1"}
	tagged := func(c *check) string {
		repo := c.repo("a")
		c.pushImage(repo, nil, "e", "c", "a", "b2", "v1.1")
		c.pushImage(repo, nil, "d", "b1", "v1.0")
		return repo
	}
	want := func(c *check, list tagList, names []string) {
		if !slices.Equal(list.Tags, names) {
			c.failf("tags are %q, want %q", list.Tags, names)
		}
	}
	all := []testCase{
		{section, "lists every tag in order", Must, func(c *check) {
			repo := tagged(c)
			list, _ := c.tags(tagsPath(repo), repo)
			want(c, list, names)
		}},
		{section, "tags that differ by case are in one of the two orders", Must, func(c *check) {
			repo := c.repo("a")
			c.pushImage(repo, nil, "b", "C", "a", "_")
			list, _ := c.tags(tagsPath(repo), repo)
			if !slices.Equal(list.Tags, []string{"C", "_", "a", "b"}) && !slices.Equal(list.Tags, []string{"_", "a", "b", "C"}) {
				c.failf("tags are %q", list.Tags)
			}
		}},
		{section, "a repository without tags has an empty list", Must, func(c *check) {
			c.pushImage(c.repo("a"), nil)
			list, _ := c.tags(tagsPath(c.repo("a")), c.repo("a"))
			want(c, list, nil)
		}},
		{section, "a repository without tags has a list, not null", Should, func(c *check) {
			c.pushImage(c.repo("a"), nil)
			_, a := c.tags(tagsPath(c.repo("a")), c.repo("a"))
			if !regexp.MustCompile(`"tags"\s*:\s*\[\s*\]`).Match(a.body) {
				c.failf("%v: tags is not an empty list", a)
			}
		}},
		{section, "a repository that does not exist is 404", Must, func(c *check) {
			c.want(c.do(http.MethodGet, tagsPath(c.repo("never")), nil), http.StatusNotFound)
		}},
		{section, "n of 0 is an empty list without Link", Must, func(c *check) {
			repo := tagged(c)
			list, a := c.tags(tagsPath(repo)+"?n=0", repo)
			want(c, list, nil)
			if c.next(a) != "" {
				c.failf("%v: has a Link", a)
			}
		}},
		{section, "n larger than the number of tags gives all of them", Must, func(c *check) {
			repo := tagged(c)
			list, _ := c.tags(tagsPath(repo)+"?n=100", repo)
			want(c, list, names)
		}},
		{section, "last without n gives all that follow", Must, func(c *check) {
			repo := tagged(c)
			list, _ := c.tags(tagsPath(repo)+"?last=b2", repo)
			want(c, list, names[3:])
		}},
		{section, "last with n gives the next n", Must, func(c *check) {
			repo := tagged(c)
			list, _ := c.tags(tagsPath(repo)+"?n=2&last=b1", repo)
			want(c, list, names[2:4])
		}},
		{section, "last of the last tag gives nothing", Must, func(c *check) {
			repo := tagged(c)
			list, _ := c.tags(tagsPath(repo)+"?n=2&last=v1.1", repo)
			want(c, list, nil)
		}},
		{section, "last need not be there", Must, func(c *check) {
			repo := tagged(c)
			list, _ := c.tags(tagsPath(repo)+"?last=bb", repo)
			want(c, list, names[3:])
		}},
		{section, "a tag that was moved is listed once", Must, func(c *check) {
			c.pushImage(c.repo("a"), nil, "tag")
			c.pushImage(c.repo("a"), nil, "tag")
			list, _ := c.tags(tagsPath(c.repo("a")), c.repo("a"))
			want(c, list, []string{"tag"})
		}},
	}
	for _, n := range []int{1, 3, 7, 8} {
		all = append(all,
			testCase{section, "n of " + strconv.Itoa(n) + " gives the first ones", Must, func(c *check) {
				repo := tagged(c)
				list, a := c.tags(tagsPath(repo)+"?n="+strconv.Itoa(n), repo)
				if len(list.Tags) < n && c.next(a) != "" {
					return // fewer are allowed when the rest is linked
				}
				want(c, list, names[:n])
			}},
			testCase{section, "pages of " + strconv.Itoa(n) + " give every tag once", Must, func(c *check) {
				repo := tagged(c)
				target := tagsPath(repo) + "?n=" + strconv.Itoa(n)
				var got []string
				for target != "" {
					list, a := c.tags(target, repo)
					got = append(got, list.Tags...)
					switch next := c.next(a); {
					case next != "":
						target = next
					case len(list.Tags) < n: // the end
						target = ""
					default: // Link is optional, last is not
						target = tagsPath(repo) + "?n=" + strconv.Itoa(n) + "&last=" + list.Tags[len(list.Tags)-1]
					}
					if len(got) > 2*len(names) {
						c.failf("the pages do not end: %q", got)
					}
				}
				want(c, tagList{Tags: got}, names)
			}},
		)
	}
	return all
}
