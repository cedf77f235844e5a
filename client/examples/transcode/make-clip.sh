#!/bin/sh
# Makes a video of 5 s with moving shapes, a clock and a tone: make-clip.sh [file, by default clip.mp4]
set -eu
clip=${1:-clip.mp4}
"${FFMPEG:-ffmpeg}" -nostdin -v error -y \
    -f lavfi -i testsrc=duration=5:size=1280x720:rate=25 \
    -f lavfi -i sine=frequency=440:duration=5 \
    -c:v libx264 -preset veryfast -pix_fmt yuv420p -c:a aac -shortest "$clip"
echo "$clip"
