"""Draw a ScenePlan's track with MuJoCo's off-screen renderer (OSMesa or EGL).

One model holds only what can be looked at (textures, the cone), and one graphics context a process serves every clip:
nothing is compiled for a clip, its objects are written into the scene directly.
"""

import importlib
import os

import numpy as np

from data.playground import stage
from kling.errors import ConfigError
from kling.scene.control import TILE_M
from kling.scene.plan import PlannedObject, ScenePlan, SceneTrack
from kling.shapes import Frames

_ROPE_RADIUS_M = 0.012
_FLOOR_M = 30.0
_SKIES = [(setting, lighting) for setting in stage.SETTINGS for lighting in stage.LIGHTINGS]


class Renderer:
    """An off-screen picture of one size. Not thread-safe; one a process is enough."""

    def __init__(self, *, width_px: int, height_px: int):
        """
        Raises:
            ConfigError: no off-screen renderer on this machine.
        """
        import mujoco

        backend = os.environ.get("MUJOCO_GL") or "osmesa"
        try:  # the backend's own module: MuJoCo's choice is made once, when the process first imports it
            os.environ.setdefault("PYOPENGL_PLATFORM", backend)
            self._gl = importlib.import_module(f"mujoco.{backend}").GLContext(width_px, height_px)
            self._gl.make_current()
        except (ImportError, AttributeError, RuntimeError, OSError) as error:
            raise ConfigError(
                f"no off-screen renderer ({error})",
                where=f"MUJOCO_GL={backend}",
                fix="Install libosmesa6 (Debian: apt install libosmesa6), or set MUJOCO_GL=egl on a machine with a GPU",
            ) from error
        self._backend = backend
        self._mj = mujoco
        self.width_px, self.height_px = width_px, height_px
        self._model = _assets(mujoco, width_px, height_px)
        self._context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_50)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(self._model, maxgeom=64)
        self._rect = mujoco.MjrRect(0, 0, width_px, height_px)
        self._materials = {self._model.material(i).name: i for i in range(self._model.nmat)}
        mesh_turn = np.zeros(9)
        mujoco.mju_quat2Mat(mesh_turn, self._model.mesh_quat[0])
        self._mesh_turn = mesh_turn.reshape(3, 3)
        self._sky_ids = self._context.texture[: len(_SKIES)].copy()
        flags, names = self._scene.flags, mujoco.mjtRndFlag
        flags[names.mjRND_SHADOW] = flags[names.mjRND_SKYBOX] = flags[names.mjRND_REFLECTION] = 1
        flags[names.mjRND_FOG] = flags[names.mjRND_HAZE] = 0

    @property
    def name(self) -> str:
        return f"mujoco {self._mj.__version__} {self._backend}"

    def draw(self, plan: ScenePlan, track: SceneTrack) -> Frames:
        """Every frame of the track; f h w 3 uint8."""
        self._gl.make_current()
        self._light(plan)
        frames = np.empty((len(track.camera.fov_y_deg), self.height_px, self.width_px, 3), np.uint8)
        picture = np.empty((self.height_px, self.width_px, 3), np.uint8)
        for i in range(len(frames)):
            self._place(plan, track, i)
            self._aim(np.asarray(track.camera.camera_to_world[i]), track.camera.fov_y_deg[i])
            self._mj.mjr_render(self._rect, self._scene, self._context)
            self._mj.mjr_readPixels(picture, None, self._rect, self._context)
            frames[i] = picture[::-1]
        return frames

    def close(self) -> None:
        self._gl.make_current()
        self._context.texture[0] = self._sky_ids[0]  # each is freed once
        self._context.free()
        self._gl.free()

    def _light(self, plan: ScenePlan) -> None:
        setting, lighting = stage.SETTINGS[plan.environment.setting], stage.LIGHTINGS[plan.environment.lighting]
        # MuJoCo draws the first sky it has: the wanted one takes its place. All are on the graphics side already.
        wanted = _SKIES.index((plan.environment.setting, plan.environment.lighting))
        self._context.texture[0] = self._sky_ids[wanted]
        self._scene.nlight = 2
        light, fill = self._scene.lights[0], self._scene.lights[1]
        direction = np.array(lighting.direction) / np.linalg.norm(lighting.direction)
        light.type = self._mj.mjtLightType.mjLIGHT_DIRECTIONAL
        light.pos[:] = -direction * 8
        light.dir[:] = direction
        light.castshadow = 1
        light.headlight = 0
        light.attenuation[:] = (1, 0, 0)
        light.ambient[:] = (0, 0, 0)
        light.diffuse[:] = np.array(lighting.diffuse) * setting.light
        light.specular[:] = (0.8, 0.8, 0.8)
        light.texid = -1
        # The second light is everywhere, so that shadows are grey and not black: MuJoCo darkens by the first alone.
        fill.type = self._mj.mjtLightType.mjLIGHT_DIRECTIONAL
        fill.pos[:] = (0, -4, 8)
        fill.dir[:] = (0.0, 0.6, -0.8)
        fill.castshadow = fill.headlight = 0
        fill.attenuation[:] = (1, 0, 0)
        fill.ambient[:] = np.array(lighting.ambient) * setting.light
        fill.diffuse[:] = np.array(lighting.ambient) * setting.light * 0.55
        fill.specular[:] = (0, 0, 0)
        fill.texid = -1

    def _place(self, plan: ScenePlan, track: SceneTrack, frame: int) -> None:
        self._scene.ngeom = 0
        kinds = self._mj.mjtGeom
        setting = plan.environment.setting
        floor = self._add(kinds.mjGEOM_PLANE, (_FLOOR_M, _FLOOR_M, 0.1), (0, 0, 0), np.eye(3), (1, 1, 1, 1))
        floor.matid = self._materials[f"floor/{setting}"]
        floor.reflectance = stage.SETTINGS[setting].floor_reflectance
        floor.specular, floor.shininess = 0.0, 0.0
        for item, moving in zip(plan.objects, track.objects, strict=True):
            turn = np.zeros(9)
            self._mj.mju_quat2Mat(turn, np.asarray(moving.quaternion[frame]))
            position = np.asarray(moving.position_m[frame])
            self._add_object(item, position, turn.reshape(3, 3))
            if item.pivot_m is not None:
                rope = self._add(kinds.mjGEOM_CAPSULE, (_ROPE_RADIUS_M,) * 3, position, np.eye(3), (0.25, 0.22, 0.2, 1))
                self._mj.mjv_connector(rope, kinds.mjGEOM_CAPSULE, _ROPE_RADIUS_M, position, np.asarray(item.pivot_m))

    def _add_object(self, item: PlannedObject, position: np.ndarray, turn: np.ndarray) -> None:
        kinds = self._mj.mjtGeom
        a, b, c = item.half_size_m
        kind, size = {
            "ball": (kinds.mjGEOM_SPHERE, (a, a, a)),
            "cube": (kinds.mjGEOM_BOX, (a, b, c)),
            "cylinder": (kinds.mjGEOM_CYLINDER, (a, c, 0.0)),
            "capsule": (kinds.mjGEOM_CAPSULE, (a, max(c - a, 1e-3), 0.0)),
            "cone": (kinds.mjGEOM_MESH, (a, b, c)),
        }[item.proxy]
        color = stage.COLORS.get(item.color or "", stage.UNSAID_COLOR)
        surface_name = item.material or item.finish or "matte"
        surface = stage.SURFACES[surface_name]
        if item.proxy == "cone":  # a mesh has no size of its own, and MuJoCo moved its origin to its centre of mass
            sized = turn * np.array([a, b, c])
            position, turn = position + sized @ self._model.mesh_pos[0], sized @ self._mesh_turn
        geom = self._add(kind, size, position, turn, (*color, 1.0))
        geom.matid = self._materials[surface.texture]
        geom.specular, geom.shininess = surface.specular, surface.shininess
        if item.finish == "shiny":
            geom.specular, geom.shininess = stage.SURFACES["shiny"].specular, stage.SURFACES["shiny"].shininess
        elif item.finish == "matte":
            geom.specular = 0.0
        geom.emission = surface.emission
        if item.proxy == "cone":
            geom.dataid = 0

    def _add(self, kind, size, position, turn, rgba):
        geom = self._scene.geoms[self._scene.ngeom]
        self._mj.mjv_initGeom(
            geom,
            kind,
            np.asarray(size, float),
            np.asarray(position, float),
            np.asarray(turn, float).ravel(),
            np.float32(rgba),
        )
        geom.category = self._mj.mjtCatBit.mjCAT_DYNAMIC
        self._scene.ngeom += 1
        return geom

    def _aim(self, pose: np.ndarray, fov_y_deg: float) -> None:
        near, far = 0.05, 60.0
        top = near * np.tan(np.radians(fov_y_deg) / 2)
        for camera in self._scene.camera:  # two eyes, the same
            camera.pos[:] = pose[:3, 3]
            camera.forward[:] = pose[:3, 2]
            camera.up[:] = -pose[:3, 1]
            camera.frustum_center, camera.frustum_width = 0.0, top * self.width_px / self.height_px
            camera.frustum_bottom, camera.frustum_top = -top, top
            camera.frustum_near, camera.frustum_far = near, far


def _assets(mujoco, width_px: int, height_px: int):
    """A model of nothing but textures, materials and the cone."""
    spec = mujoco.MjSpec()
    spec.visual.global_.offwidth, spec.visual.global_.offheight = width_px, height_px
    spec.visual.quality.offsamples = 4
    # As fine as the picture can show, no finer: most of the time of a 64-pixel frame would go into shadows.
    spec.visual.quality.shadowsize = int(np.clip(4 * height_px, 256, 4096))
    spec.visual.quality.numslices = spec.visual.quality.numstacks = int(np.clip(height_px // 4, 18, 64))
    spec.visual.map.shadowclip = 5.0
    spec.stat.extent, spec.stat.center = 1.0, [0, 0, 0]
    for setting, lighting in _SKIES:
        pixels = stage.sky_texture(setting, lighting)
        _texture(mujoco, spec, f"sky/{setting}/{lighting}", mujoco.mjtTexture.mjTEXTURE_SKYBOX, pixels)
    for setting in stage.SETTINGS:
        _texture(mujoco, spec, f"floor/{setting}", mujoco.mjtTexture.mjTEXTURE_2D, stage.floor_texture(setting))
        # MuJoCo counts repeats in half of a length.
        _material(mujoco, spec, f"floor/{setting}", texrepeat=[2 / TILE_M, 2 / TILE_M], texuniform=True)
    for name in sorted({surface.texture for surface in stage.SURFACES.values()}):
        _texture(mujoco, spec, name, mujoco.mjtTexture.mjTEXTURE_CUBE, stage.object_texture(name))
        _material(mujoco, spec, name)
    from kling.physics.simulate import cone_vertices

    spec.add_mesh(name="cone", uservert=cone_vertices().ravel(), inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX)
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname="cone")
    return spec.compile()


def _texture(mujoco, spec, name: str, kind, pixels: np.ndarray) -> None:
    texture = spec.add_texture(name=name, type=kind)
    texture.height, texture.width, texture.nchannel = *pixels.shape[:2], 3
    texture.data = pixels.tobytes()


def _material(mujoco, spec, name: str, **fields) -> None:
    material = spec.add_material(name=name, **fields)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
