{{- define "cir.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "cir.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "cir.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "cir.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Selectors cannot change in an upgrade, so nothing that an upgrade changes may stand here. */}}
{{- define "cir.selector" -}}
app.kubernetes.io/name: {{ include "cir.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "cir.labels" -}}
{{ include "cir.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "cir.image" -}}
{{- $tag := default (printf "%s-%s" .Chart.AppVersion (ternary "cuda" "cpu" .Values.gpu.enabled)) .Values.image.tag -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ $tag }}{{ end }}
{{- end -}}

{{- define "cir.serviceAccount" -}}
{{- default (ternary (include "cir.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{/* Name of the Secret of keys; empty if the service needs none. */}}
{{- define "cir.keysSecret" -}}
{{- if .Values.auth.existingSecret }}{{ .Values.auth.existingSecret }}{{ else if .Values.auth.keys }}{{ include "cir.fullname" . }}-keys{{ end -}}
{{- end -}}

{{/* Name of the claim that holds the models; empty if they are kept in the pod. */}}
{{- define "cir.claim" -}}
{{- if .Values.modelVolume.existingClaim }}{{ .Values.modelVolume.existingClaim }}{{ else if .Values.modelVolume.create }}{{ include "cir.fullname" . }}-models{{ end -}}
{{- end -}}

{{- define "cir.scheme" -}}
{{ ternary "https" "http" (not (empty .Values.tls.existingSecret)) }}
{{- end -}}

{{/* The drain, then the longest request, and a margin. */}}
{{- define "cir.graceSeconds" -}}
{{- addf (dig "drain_seconds" 5 .Values.settings) (dig "request_timeout" 50 .Values.settings) 20 | ceil | int -}}
{{- end -}}

{{/* A setting as the environment holds it. JSON, because a large number would be printed as 8.388608e+06. */}}
{{- define "cir.word" -}}
{{- if kindIs "string" . }}{{ . }}{{ else if kindIs "slice" . }}{{ join " " . }}{{ else }}{{ toJson . }}{{ end -}}
{{- end -}}

{{- define "cir.env" -}}
- {name: CIR_MODEL, value: {{ join " " .Values.models | quote }}}
{{- range $name, $value := .Values.settings }}
- {name: CIR_{{ upper $name }}, value: {{ include "cir.word" $value | quote }}}
{{- end }}
{{- if include "cir.keysSecret" . }}
- {name: CIR_API_KEYS_FILE, value: /etc/cir-vectorizer/keys/{{ .Values.auth.keysEntry }}}
{{- end }}
{{- if .Values.auth.adminKeysEntry }}
- {name: CIR_ADMIN_KEYS_FILE, value: /etc/cir-vectorizer/keys/{{ .Values.auth.adminKeysEntry }}}
{{- end }}
{{- if .Values.tls.existingSecret }}
- {name: CIR_TLS_CERT, value: /etc/cir-vectorizer/tls/tls.crt}
- {name: CIR_TLS_KEY, value: /etc/cir-vectorizer/tls/tls.key}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "cir.offline" -}}
- {name: HF_HUB_OFFLINE, value: "1"}
{{- end -}}

{{- define "cir.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if include "cir.keysSecret" . }}
- {name: keys, mountPath: /etc/cir-vectorizer/keys, readOnly: true}
{{- end }}
{{- if .Values.tls.existingSecret }}
- {name: tls, mountPath: /etc/cir-vectorizer/tls, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}
