// Attributes are at the locations where pyrender puts them.
layout(location = 0) in vec3 position;
#ifdef MVR_TEXTURED
layout(location = 1) in vec2 texcoord;
MVR_AT out vec2 uv;
#endif
#ifdef MVR_COLORED
#ifdef MVR_TEXTURED
layout(location = 2)
#else
layout(location = 1)
#endif
in vec3 vertex_color;
MVR_AT out vec3 color;
#endif

uniform mat4 to_camera;
uniform float zoom;  // 1 / tan(field of view / 2)
uniform vec2 clip;   // depth to clip space
uniform float shift; // of the image, to the right and downwards

MVR_AT out vec3 point;  // in the camera's frame

void main() {
    point = (to_camera * vec4(position, 1.0)).xyz;
    // Upside down: OpenGL counts rows from the bottom, so they are read in the order of images, and the samples lie at the
    // positions of the rasterizer's.
    gl_Position = vec4(vec2(point.x, -point.y) * zoom - shift * point.z, point.z * clip.x + clip.y, -point.z);
#ifdef MVR_TEXTURED
    uv = vec2(texcoord.x, 1.0 - texcoord.y);  // rows of textures go from the top down
#endif
#ifdef MVR_COLORED
    color = vertex_color;
#endif
}
