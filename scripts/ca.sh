#!/usr/bin/env bash
# A certificate authority made of files, for the centre that has none: openssl and one folder. It signs gateways and brokers, renews, revokes.
#
#   scripts/ca.sh init   DIR [NAME]                         a new authority; its key never leaves DIR (keep DIR offline, on an encrypted disk)
#   scripts/ca.sh sign   DIR REQUEST SITE GATEWAY [DAYS]    check a gateway's request and sign it; the certificate goes to standard output
#   scripts/ca.sh renew  DIR REQUEST SITE GATEWAY [DAYS]    the same while an older certificate of that gateway is still valid
#   scripts/ca.sh server DIR REQUEST HOST[,HOST|IP...] [DAYS]   sign a broker's request for these names
#   scripts/ca.sh centre DIR REQUEST NAME [DAYS]            sign a request of the centre's software; NAME is its user at the broker ("dispatch")
#   scripts/ca.sh revoke DIR SERIAL|SITE.GATEWAY            a box was lost: no broker with the new list lets it in
#   scripts/ca.sh crl    DIR                                write DIR/crl.pem anew (valid 35 days: run it weekly, copy it to the brokers)
#   scripts/ca.sh list   DIR                                what was signed: state, end, serial, name
#
# A request is signed only when its signature is right, its key is P-256, P-384, Ed25519 or RSA from 2048 bits on, and its common name is what
# was asked for: <site>.<gateway>. Nothing else in a request is taken over. Exit codes: 0 done, 1 refused (and why), 2 it could not be tried.
set -euo pipefail
umask 077

trouble() { echo "ca.sh: $1" >&2; exit 2; }
refuse() { echo "ca.sh: refused: $1" >&2; exit 1; }
usage() { sed -n '2,18p' "$0" | sed 's/^# \{0,1\}//' >&2; exit 2; }

command -v openssl >/dev/null || trouble "openssl is missing (apt install openssl)"
[ $# -ge 2 ] || usage
verb=$1; dir=$2; shift 2

configuration() {
    cat > "$dir/openssl.cnf" <<END
[ca]
default_ca = gengfu
[gengfu]
dir = $dir
database = $dir/index.txt
new_certs_dir = $dir/issued
certificate = $dir/ca.pem
private_key = $dir/private/ca.key
rand_serial = yes
crlnumber = $dir/crlnumber
default_md = sha256
default_days = 365
default_crl_days = 35
policy = name
unique_subject = no
copy_extensions = none
email_in_dn = no
[name]
commonName = supplied
[gateway]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[server]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = \${ENV::GENGFU_NAMES}
END
}

opened() {
    dir=$(cd "$dir" 2>/dev/null && pwd) || trouble "there is no authority in $dir (ca.sh init)"
    [ -f "$dir/ca.pem" ] && [ -f "$dir/private/ca.key" ] || trouble "there is no authority in $dir (ca.sh init)"
    export GENGFU_NAMES="${GENGFU_NAMES:-DNS:unused}"
    configuration
    # Two signatures at one time would spoil the list.
    exec 9> "$dir/lock"
    flock 9
}

slug() { [[ $1 =~ ^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$ ]] || refuse "\"$1\" is no name of a site or gateway (lower-case letters, digits, hyphens)"; }

days() { [[ $1 =~ ^[0-9]+$ ]] && [ "$1" -ge 1 ] && [ "$1" -le 1825 ] || refuse "$1 days: from 1 to 1825"; }

# The request's key and signature.
sound() {
    [ -f "$1" ] || trouble "there is no file $1"
    openssl req -in "$1" -noout -verify >/dev/null 2>&1 || refuse "$1 is no certificate request, or its signature is wrong"
    local text
    text=$(openssl req -in "$1" -noout -text)
    case $text in
        *"NIST CURVE: P-256"* | *"NIST CURVE: P-384"* | *"Public Key Algorithm: ED25519"*) ;;
        *rsaEncryption*)
            local bits
            bits=$(sed -n 's/.*Public-Key: (\([0-9]*\) bit).*/\1/p' <<< "$text")
            [ "${bits:-0}" -ge 2048 ] || refuse "an RSA key of $bits bits; from 2048 on" ;;
        *) refuse "a key that is none of P-256, P-384, Ed25519 and RSA" ;;
    esac
}

named() {
    local found
    found=$(openssl req -in "$1" -noout -subject -nameopt multiline,utf8 | sed -n 's/^ *commonName *= //p')
    [ "$found" = "$2" ] || refuse "the request is for \"$found\", not for \"$2\""
}

valid_ones() { awk -F'\t' -v cn="/CN=$1" -v now="$(date -u +%y%m%d%H%M%SZ)" '$1 == "V" && $6 == cn && $2 > now { print $4 }' "$dir/index.txt"; }

signed() { # request, extensions, days
    local out
    out=$(mktemp "$dir/signing.XXXXXX")
    if ! openssl ca -config "$dir/openssl.cnf" -batch -notext -in "$1" -out "$out" -extensions "$2" -days "$3" -subj "/CN=$4" 2> "$dir/last.log"; then
        rm -f "$out"
        trouble "openssl did not sign; see $dir/last.log"
    fi
    cat "$out"
    rm -f "$out"
}

case $verb in
    init)
        [ $# -le 1 ] || usage
        [ ! -e "$dir/ca.pem" ] || refuse "there is an authority in $dir already; a new one needs another folder"
        mkdir -p "$dir/private" "$dir/issued"
        chmod 700 "$dir" "$dir/private"
        dir=$(cd "$dir" && pwd)
        : > "$dir/index.txt"
        echo 01 > "$dir/crlnumber"
        openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$dir/private/ca.key" 2> "$dir/last.log"
        openssl req -x509 -new -key "$dir/private/ca.key" -sha256 -days 7300 -subj "/CN=${1:-Gengfu CA}" \
            -addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign,cRLSign" -out "$dir/ca.pem.new"
        mv "$dir/ca.pem.new" "$dir/ca.pem"
        chmod 644 "$dir/ca.pem"
        export GENGFU_NAMES=DNS:unused
        configuration
        openssl ca -config "$dir/openssl.cnf" -gencrl -out "$dir/crl.pem" 2> "$dir/last.log"
        echo "ca.sh: copy $dir/ca.pem to the brokers (cafile) and to every gateway (uplink.tls.ca_file)" >&2 ;;
    sign | renew)
        [ $# -eq 3 ] || [ $# -eq 4 ] || usage
        opened
        slug "$2"; slug "$3"; days "${4:-365}"; sound "$1"; named "$1" "$2.$3"
        if [ "$verb" = sign ]; then
            [ -z "$(valid_ones "$2.$3")" ] || refuse "$2.$3 has a valid certificate already: renew it, or revoke that one if the box was lost"
        else
            [ -n "$(valid_ones "$2.$3")" ] || refuse "$2.$3 has no valid certificate to renew: sign it as a new one, if it is that box"
        fi
        signed "$1" gateway "${4:-365}" "$2.$3" ;;
    centre)
        [ $# -eq 2 ] || [ $# -eq 3 ] || usage
        opened
        slug "$2"; days "${3:-365}"; sound "$1"; named "$1" "$2"
        signed "$1" gateway "${3:-365}" "$2" ;;
    server)
        [ $# -eq 2 ] || [ $# -eq 3 ] || usage
        names=
        IFS=, read -ra hosts <<< "$2"
        for host in "${hosts[@]}"; do
            if [[ $host =~ ^[0-9.]+$ || $host == *:* ]]; then names+=",IP:$host"
            elif [[ $host =~ ^[A-Za-z0-9*.-]+$ ]]; then names+=",DNS:$host"
            else refuse "\"$host\" is no host name or address"; fi
        done
        export GENGFU_NAMES="${names#,}"
        opened
        days "${3:-365}"; sound "$1"
        signed "$1" server "${3:-365}" "${hosts[0]}" ;;
    revoke)
        [ $# -eq 1 ] || usage
        opened
        serials=$(valid_ones "$1")
        if [ -z "$serials" ]; then
            wanted=$(tr -d ':' <<< "$1" | tr 'a-f' 'A-F')
            [[ $wanted =~ ^[0-9A-F]+$ ]] && [ -f "$dir/issued/$wanted.pem" ] && serials=$wanted
        fi
        [ -n "$serials" ] || refuse "no valid certificate of \"$1\" (ca.sh list)"
        for serial in $serials; do
            openssl ca -config "$dir/openssl.cnf" -revoke "$dir/issued/$serial.pem" -crl_reason keyCompromise 2> "$dir/last.log" \
                || trouble "openssl did not revoke $serial; see $dir/last.log"
            echo "ca.sh: $serial is revoked" >&2
        done
        openssl ca -config "$dir/openssl.cnf" -gencrl -out "$dir/crl.pem" 2> "$dir/last.log"
        echo "ca.sh: copy $dir/crl.pem to the brokers (mosquitto: crlfile) and restart or reload them" >&2 ;;
    crl)
        [ $# -eq 0 ] || usage
        opened
        openssl ca -config "$dir/openssl.cnf" -gencrl -out "$dir/crl.pem" 2> "$dir/last.log" ;;
    list)
        [ $# -eq 0 ] || usage
        opened
        awk -F'\t' '{ state = $1 == "V" ? "valid" : $1 == "R" ? "revoked" : "expired"; printf "%-8s %s  %s  %s\n", state, $2, $4, substr($6, 5) }' "$dir/index.txt" ;;
    *) usage ;;
esac
