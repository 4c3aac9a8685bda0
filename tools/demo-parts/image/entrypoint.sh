#!@busybox@/bin/sh
# The image's entrypoint: `entrypoint` serves, `entrypoint health` asks whether it does.
export PATH=@application@/bin:@curl@/usr/bin:@busybox@/bin
export SSL_CERT_FILE=@cacert@/etc/ssl/certs/ca-bundle.crt
port=${PORT:-8080}

case ${1:-serve} in
  serve) exec app "$port" ;;
  health) exec curl --fail --silent --show-error --max-time 2 "http://127.0.0.1:$port/health" ;;
  *) exec "$@" ;;
esac
