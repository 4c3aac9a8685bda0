/* The application of the demo's image: serves the samples of its channels over HTTP.

     app PORT
     GET /health              "ok"
     GET /                    release and number of channels, as JSON
     GET /channel/N?time=T    one sample, in decimal */
#include "channel.h"

#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *respond(const char *path, char *body, size_t size)
{
    unsigned channel;
    unsigned long time = 0;

    if (strcmp(path, "/health") == 0)
        snprintf(body, size, "ok\n");
    else if (strcmp(path, "/") == 0)
        snprintf(body, size, "{\"release\": %d, \"channels\": %u}\n", RELEASE, channel_count);
    else if (sscanf(path, "/channel/%u?time=%lu", &channel, &time) >= 1 && channel < channel_count)
        snprintf(body, size, "%u\n", channels[channel]((uint32_t)time));
    else {
        snprintf(body, size, "there is no %.100s\n", path);
        return "404 Not Found";
    }
    return "200 OK";
}

static void serve(int client)
{
    char request[4096], path[1024], body[256], response[512];
    ssize_t length = read(client, request, sizeof request - 1);

    if (length <= 0)
        return;
    request[length] = '\0';
    if (sscanf(request, "GET %1023s", path) != 1)
        return;
    const char *status = respond(path, body, sizeof body);
    int size = snprintf(response, sizeof response,
                        "HTTP/1.1 %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
                        status, strlen(body), body);
    if (write(client, response, (size_t)size) != size)
        perror("write");
}

static void stop(int number)
{
    (void)number;
    _exit(0);
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = { .sin_family = AF_INET };
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;

    if (argc != 2 || atoi(argv[1]) <= 0) {
        fprintf(stderr, "usage: app PORT\n");
        return 2;
    }
    /* As process 1 of a container it has no default handlers. */
    signal(SIGTERM, stop);
    signal(SIGINT, stop);
    signal(SIGPIPE, SIG_IGN);
    address.sin_port = htons((uint16_t)atoi(argv[1]));
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64)) {
        perror("listen");
        return 1;
    }
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client >= 0) {
            serve(client);
            close(client);
        }
    }
}
