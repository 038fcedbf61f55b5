#version 330 core
// Inputs stand where the host puts them: it fills in the *_LOC numbers.
layout(location = 0) in vec3 position;
#ifdef TEXCOORD_0_LOC
layout(location = TEXCOORD_0_LOC) in vec2 texcoord;
out vec2 uv;
#endif
#ifdef COLOR_0_LOC
layout(location = COLOR_0_LOC) in vec4 vertex_color;
out vec3 color;
#endif

uniform mat4 V;  // world to camera
uniform mat4 P;  // camera to clip

out vec3 point;  // in the camera's frame

void main() {
    vec4 in_camera = V * vec4(position, 1.0);
    point = in_camera.xyz;
    gl_Position = P * in_camera;
    // Upside down, so that GL's four samples, counted from the bottom row, lie where the ray caster puts its four.
    gl_Position.y = -gl_Position.y;
#ifdef TEXCOORD_0_LOC
    uv = texcoord;
#endif
#ifdef COLOR_0_LOC
    color = vertex_color.rgb;
#endif
}
