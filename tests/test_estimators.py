"""PartFeatures is a transformer like others of scikit-learn, except that its rows are images."""

import pickle

import numpy as np
import pytest
from PIL import Image

import partzoo
from partzoo.errors import ShapeError, UsageError

sklearn = pytest.importorskip("sklearn")

from sklearn.base import clone  # noqa: E402
from sklearn.compose import ColumnTransformer  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.utils import estimator_checks  # noqa: E402

from partzoo.estimators import PartFeatures  # noqa: E402

# scikit-learn's checks that need no table. check_estimator itself runs the first alone, since the input is not a table;
# of the others, each passes a table of numbers, or is about classes, sample weights or sparse input.
CHECKS = (
    "check_estimator_cloneable", "check_dataframe_column_names_consistency",
    "check_do_not_raise_errors_in_init_or_set_params", "check_estimator_repr", "check_estimator_tags_renamed",
    "check_get_feature_names_out_error", "check_get_params_invariance", "check_mixin_order",
    "check_no_attributes_set_in_init", "check_parameters_default_constructible", "check_set_params",
    "check_transformers_unfitted", "check_valid_tag_types",
)  # fmt: skip


@pytest.fixture
def images(tmp_path):
    """Eight images, of which the odd ones have a bright upper half."""
    random = np.random.default_rng(0)
    names = []
    for number in range(8):
        pixels = random.integers(0, 100, (32, 48, 3), dtype=np.uint8)
        pixels[:16] += np.uint8(number % 2 * 150)
        names.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(pixels).save(names[-1])
    return names


def features(**options):
    return PartFeatures(**{"k": 2, "model": "toy-vit", "background": None, "size": 64} | options)


def test_columns_are_share_place_and_embedding_of_each_part(images):
    made = features()
    table = made.fit_transform(images)
    names = made.get_feature_names_out()
    width = partzoo.load("toy-vit").dim
    assert table.shape == (8, len(names)) == (8, made.n_features_out_) == (8, 2 * (3 + width))
    assert names[:4].tolist() == ["part1_share", "part1_x", "part1_y", "part1_e0"] and names[3 + width] == "part2_share"
    found = partzoo.discover_parts(images, vocabulary=made.vocabulary_)
    for row, parts in zip(table, found, strict=True):
        about = dict(zip(names, row, strict=True))
        for part in (1, 2):
            assert about[f"part{part}_share"] == pytest.approx(parts.areas[part - 1] / (32 * 48))
            if part in parts.present:
                x, y = parts.centroids[part - 1]
                assert about[f"part{part}_x"] == pytest.approx((x - 23.5) / 48, abs=1e-6)
                assert about[f"part{part}_y"] == pytest.approx((y - 15.5) / 32, abs=1e-6)
            embedding = [about[f"part{part}_e{i}"] for i in range(width)]
            assert np.linalg.norm(embedding) == pytest.approx(float(part in parts.present), abs=1e-6)


def test_fit_and_transform_give_what_fit_transform_gives_and_other_images_get_the_same_columns(images):
    made = features(embeddings=False)
    table = made.fit_transform(images)
    assert table.shape == (8, 6)
    again = features(embeddings=False).fit(images)
    np.testing.assert_array_equal(again.transform(images), table)
    np.testing.assert_array_equal(again.transform(np.array(images)[[5, 2]]), table[[5, 2]])
    np.testing.assert_array_equal(again.transform([Image.open(images[3])]), table[[3]])


def test_an_absent_part_is_all_zeros():
    made = features()
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    made.set_params(background="boundary").fit([image, image[::-1]])
    blank = made.transform([np.full((32, 32, 3), 90, np.uint8)])
    assert blank.shape == (1, made.n_features_out_) and not blank.any()


def test_clones_and_pickles_keep_parameters_and_results(images):
    made = features(seed=3)
    assert clone(made).get_params() == made.get_params() and not hasattr(clone(made), "vocabulary_")
    table = made.fit_transform(images)
    again = pickle.loads(pickle.dumps(made))
    assert again.get_params() == made.get_params()
    np.testing.assert_array_equal(again.transform(images), table)
    with pytest.raises(NotFittedError):
        clone(made).transform(images)
    with pytest.raises(NotFittedError):
        clone(made).get_feature_names_out()


def test_a_grid_search_over_a_pipeline_chooses_the_number_of_parts(images):
    classes = np.arange(8) % 2
    pipeline = make_pipeline(features(embeddings=False), LogisticRegression(C=100))
    search = GridSearchCV(pipeline, {"partfeatures__k": [1, 2]}, cv=2, error_score="raise")
    search.fit(images, classes)
    assert search.best_params_ == {"partfeatures__k": 2} and search.best_score_ > 0.7
    assert (search.predict(images) == classes).mean() > 0.7
    assert search.best_estimator_[:-1].get_feature_names_out().tolist()[:2] == ["part1_share", "part1_x"]


def test_a_column_of_a_table_is_a_list_of_images(images):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"image": images, "number": np.arange(8.0)})
    made = ColumnTransformer([("parts", features(embeddings=False), ["image"]), ("rest", "passthrough", ["number"])])
    found = made.fit_transform(table)
    assert found.shape == (8, 7)
    np.testing.assert_array_equal(found[:, :6], features(embeddings=False).fit_transform(images).astype(float))
    assert made.get_feature_names_out()[0] == "parts__part1_share"
    with pytest.raises(ShapeError, match="one column"):
        features().fit(table)


def test_the_parts_of_a_part_model_are_described_by_its_descriptors(images):
    model = "partformer-resnet18.faces-k8"
    made = PartFeatures(None, model=model).fit(images[:1])
    row = made.transform(images[:1])[0].reshape(8, -1)
    parts = partzoo.discover_parts(images[0], model=model)
    present = [part - 1 for part in parts.present]
    np.testing.assert_allclose(row[present, 3:], parts.descriptors[present], rtol=1e-6)
    assert not np.delete(row, present, 0).any()


@pytest.mark.parametrize("name", CHECKS)
def test_scikit_learn_s_own_checks_pass(name):
    check = getattr(estimator_checks, name, None)
    if check is None:
        pytest.skip("this version of scikit-learn has no such check")
    check("PartFeatures", features())


def test_the_output_can_be_a_table_of_pandas(images):
    pytest.importorskip("pandas")
    made = features(embeddings=False).set_output(transform="pandas")
    table = made.fit_transform(images)
    assert table.columns.tolist() == made.get_feature_names_out().tolist() and table.shape == (8, 6)


@pytest.mark.parametrize("one", ["a.png", np.zeros((9, 9)), np.zeros((9, 9, 3), np.uint8)], ids=["path", "grey", "rgb"])
def test_one_image_or_a_table_of_numbers_is_refused(one):
    with pytest.raises(UsageError, match="pass a list of images"):
        features().fit(one)
