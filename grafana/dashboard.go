package main

// object is a JSON object of Grafana's model; version 39 of it is what Grafana
// 10.3 and later read, and older ones do well enough.
type object = map[string]any

const (
	schemaVersion = 39
	columns       = 24 // of Grafana's grid
	uid           = "metawire"
)

// dashboard lays the rows out, one below the other.
func dashboard(rows []row) object {
	var panels []object
	id, y := 0, 0
	place := func(p object, x, w, h int) {
		id++
		p["id"], p["gridPos"] = id, object{"x": x, "y": y, "w": w, "h": h}
		panels = append(panels, p)
	}
	for _, r := range rows {
		place(object{"type": "row", "title": r.title, "collapsed": false, "panels": []object{}}, 0, columns, 1)
		y++
		x := 0
		for _, p := range r.panels {
			if x+p.width > columns {
				x, y = 0, y+r.height
			}
			place(p.object(), x, p.width, r.height)
			x += p.width
		}
		y += r.height
	}
	return object{
		"uid": uid, "title": "Metawire", "tags": []string{"metawire", "falco", "kubernetes"},
		"description":   "Whether Falco gets its Kubernetes metadata, and if not, why.",
		"schemaVersion": schemaVersion, "version": 1, "editable": true, "graphTooltip": 1,
		"time": object{"from": "now-3h", "to": "now"}, "refresh": "30s", "timezone": "",
		"links": []object{{
			"title": "Runbooks", "type": "link", "icon": "doc", "targetBlank": true,
			"url": "https://github.com/metawire/metawire/blob/main/docs/runbooks/README.md",
		}},
		"annotations": object{"list": []object{}},
		"templating":  object{"list": variables()},
		"panels":      panels,
	}
}

// variables are those of the dashboard. A release is found by its collectors: the
// job of a target is the name of its Service.
func variables() []object {
	query := func(name, label, text, regex string) object {
		return object{
			"name": name, "label": label, "type": "query", "datasource": source(), "definition": text,
			"query": object{"query": text, "refId": name}, "regex": regex,
			"refresh": 2, "sort": 1, "hide": 0, "multi": false, "includeAll": false,
		}
	}
	return []object{
		{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1, "hide": 0, "multi": false, "includeAll": false},
		query("namespace", "Namespace", "label_values(metawire_collector_ready, namespace)", ""),
		query("release", "Release", `label_values(metawire_collector_ready{namespace="$namespace"}, job)`, "/^(.*)-collector$/"),
	}
}

func source() object { return object{"type": "prometheus", "uid": "${datasource}"} }

// object returns the panel as Grafana has it.
func (p panel) object() object {
	var targets []object
	for i, q := range p.queries {
		targets = append(targets, object{
			"refId": string(rune('A' + i)), "datasource": source(), "expr": q.expr, "legendFormat": q.legend,
			"instant": p.kind != series, "range": p.kind == series,
		})
	}
	defaults := object{"unit": p.unit, "custom": object{}, "mappings": []object{}}
	if len(p.steps) > 0 {
		defaults["thresholds"] = object{"mode": "absolute", "steps": p.steps}
	}
	if p.noValue != "" {
		defaults["noValue"] = p.noValue
	}
	options := object{}
	switch p.kind {
	case number:
		options = object{"colorMode": "background", "graphMode": "none", "textMode": "auto", "reduceOptions": object{"calcs": []string{"lastNotNull"}, "fields": "", "values": false}}
	case series:
		if !p.negative {
			defaults["min"] = 0
		}
		defaults["custom"] = object{"drawStyle": "line", "lineWidth": 1, "fillOpacity": 10, "showPoints": "never", "stacking": object{"mode": stacking(p.stacked), "group": "A"}}
		options = object{"legend": object{"displayMode": "list", "placement": "bottom", "showLegend": true}, "tooltip": object{"mode": "multi", "sort": "desc"}}
	case bars:
		options = object{"displayMode": "basic", "orientation": "horizontal", "reduceOptions": object{"calcs": []string{"lastNotNull"}, "fields": "", "values": false}}
	}
	return object{
		"type": string(p.kind), "title": p.title, "description": p.description, "datasource": source(),
		"fieldConfig": object{"defaults": defaults, "overrides": []object{}}, "options": options, "targets": targets,
	}
}

func stacking(stacked bool) string {
	if stacked {
		return "normal"
	}
	return "none"
}
